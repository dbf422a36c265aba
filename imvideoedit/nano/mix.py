"""Which edits and texts the training pairs have: single, compound or identity edits; full, partial or no texts."""

from dataclasses import dataclass

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.world.edits import Edit, sample_compound, sample_edit
from imvideoedit.world.grammar import apply_instruction
from imvideoedit.world.located import sample_located

SPLITS = ("train", "test")
MOST_STEPS = 4  # single edits in a compound one


@dataclass(frozen=True)
class PairMix:
    """Fractions in [0, 1] of the training pairs.

    Args:
        compound: pairs of two to ``MOST_STEPS`` edits at once.
        identity: pairs whose target is the source, so that nothing is to change.
        partial: texts that say only what the instruction says, instead of the full edited prompt.
        imperative: texts that are the instruction itself.
        empty: empty texts, for guidance.
        located: pairs of a thing that has a twin, and that only the instruction's words of its place tell apart.

    Raises:
        UserError: a fraction is out of [0, 1], or fractions of exclusive kinds add up to more than 1.
    """

    compound: float = 0.0
    identity: float = 0.0
    partial: float = 0.2
    imperative: float = 0.0
    empty: float = 0.1
    located: float = 0.0

    def __post_init__(self) -> None:
        fractions = vars(self)
        if min(fractions.values()) < 0 or max(self.compound + self.identity + self.located, self.texts()) > 1:
            raise UserError(
                f"data.mix is {fractions}; fractions are in [0, 1], and those of one kind add up to at most 1"
            )

    def texts(self) -> float:
        """Fraction of the pairs without the full edited prompt."""
        return self.partial + self.imperative + self.empty


def sample_pair(seed: int, index: int, split: str = "train", mix: PairMix | None = None) -> tuple[Edit, str]:
    """Pair ``index`` of a seed: an edit of the split's compositions, and the text for training.

    The test split has only single edits with the edited prompt.
    """
    mix = mix or PairMix()
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    if split == "test":
        edit = sample_edit(rng, split)
        return edit, edit.edited_prompt
    edit = _edit(rng, mix)
    return edit, _text(edit, rng.random(), mix)


def _edit(rng: np.random.Generator, mix: PairMix) -> Edit:
    draw = rng.random()
    if draw < mix.compound:
        return sample_compound(rng, "train", int(rng.integers(2, MOST_STEPS + 1)))
    if draw >= 1 - mix.located:
        return sample_located(rng, "train")
    edit = sample_edit(rng, "train")
    if draw < mix.compound + mix.identity:
        return Edit("identity", edit.source, edit.source, "keep everything as it is")
    return edit


def _text(edit: Edit, draw: float, mix: PairMix) -> str:
    if draw < mix.empty:
        return ""
    if edit.source == edit.target or draw >= mix.texts():
        return edit.edited_prompt
    if draw < mix.empty + mix.imperative:
        return edit.instruction
    partial = apply_instruction(edit.instruction)
    if partial is None and mix.located:  # its place is more than a name, which is all that the grammar knows
        return edit.instruction
    assert partial is not None, f"the grammar does not parse its own instruction {edit.instruction!r}"
    return partial
