"""Which training pairs of the nano world there are.

Shapes: F frames, H W pixels.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from imvideoedit.nano.inputs import Example, Exposed, Preparation
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.nano.readouts import label_tokens
from imvideoedit.world.edits import Edit

PROBED = 8  # pairs whose pixels and texts identify the state of the renderer and the grammar
LAYOUT = 2  # of the entries
FURTHER = 10**9  # between the numbers of pairs that are tried for one of a film

Rendered = tuple[Example | Exposed, Tensor | None]
"""An example before films are developed, and the labels of its target's tokens."""


@dataclass(frozen=True)
class PairSet:
    """Pairs 0 to ``count - 1`` of a seed.

    Args:
        split: ``train`` or ``test`` compositions.
        resolution: height and width in pixels; must be a multiple of the backbone's ``pixel_multiple``.
        mix: of the training pairs.
        frames: of each pair, 4k + 1; above 1 the pairs are videos, both rendered exactly, or filmed from stills.
        preparation: what a method asks for and changes, and whether pairs are filmed.
        variants: times that each pair is transformed, each time by other random numbers.
        plain: pairs are scenes that stay as they are, with their full description.
    """

    seed: int
    count: int
    split: str
    resolution: int = 64
    mix: PairMix = field(default_factory=PairMix)
    frames: int = 1
    preparation: Preparation = field(default_factory=Preparation)
    variants: int = 1
    plain: bool = False

    def pair(self, index: int) -> tuple[Edit, str]:
        """An edit, and the text for training; of films none to another view, which no one film of both can show."""
        for attempt in itertools.count():
            edit, text = sample_pair(self.seed, index + attempt * FURTHER, self.split, self.mix)
            if self.plain:
                return replace(edit, target=edit.source), text and edit.source_prompt
            if self.preparation.instructed and text:
                text = edit.instruction
            if not self.preparation.film or edit.source.view == edit.target.view:
                return edit, text
        raise AssertionError("most edits keep the view")

    def render(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """Source and target, uint8 ``[F, H, W, 3]``."""
        return edit.render(self.frames, self.size)[:2]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.resolution, self.resolution

    def example(self, index: int, variant: int = 0) -> Example:
        """A pair as the method makes it, a function of the seed, the index and the variant."""
        return self.preparation.developed([self.exposed(index, variant)], self.size)[0]

    def exposed(self, index: int, variant: int = 0) -> Example | Exposed:
        """What :meth:`example` is made of, see :meth:`Preparation.exposed`."""
        edit, text = self.pair(index)
        return self.preparation.exposed(edit, text, self.frames, self.size, (self.seed, index, variant))

    def labels(self, index: int, example: Example | Exposed, token: int) -> Tensor | None:
        """What each token of the target shows (see ``label_tokens``); None of films and of changed targets.

        Args:
            token: pixels of a token's side.
        """
        if isinstance(example, Exposed):
            return None
        edit, _ = self.pair(index)
        if self.preparation.transform is not None and not np.array_equal(example["target"], self.render(edit)[1]):
            return None
        return label_tokens(edit.target, (self.frames - 1) // 4 + 1, (self.resolution // token,) * 2)

    def rendered(self, token: int, place: tuple[int, int]) -> Rendered:
        """An example and its labels, of an index and a variant.

        Args:
            token: see :meth:`labels`.
        """
        example = self.exposed(*place)
        return example, self.labels(place[0], example, token)

    def keys(self, autoencoder: str) -> dict[str, tuple[int, int]]:
        """Keys of all entries, with the pair's index and the variant; all pairs of a variant before the next."""
        base = self.key(autoencoder)
        names = {
            f"{base} {index}" + (f" {variant}" if variant else ""): (index, variant)
            for variant in range(self.variants)
            for index in range(self.count)
        }
        return {hashlib.sha256(name.encode()).hexdigest()[:32]: place for name, place in names.items()}

    def key(self, autoencoder: str) -> str:
        """A hash of all that decides the pairs, but not their number."""
        mix = {name: share for name, share in vars(self.mix).items() if share or name != "located"}  # as before it was
        settings = [LAYOUT, autoencoder, self.seed, self.split, self.resolution, mix, self.frames]
        digest = hashlib.sha256(json.dumps(settings).encode())
        if self.plain:
            digest.update(b"plain")
        for edit, text in map(self.pair, range(PROBED)):
            digest.update(text.encode() + b"".join(video[0].tobytes() for video in self.render(edit)))
        asked = self.preparation
        if asked.inputs or asked.transform is not None or asked.film:
            digest.update(
                f"{asked.inputs} {asked.identity}{' film without other views' if asked.film else ''}".encode()
            )
            # A transform may change few examples, so more of them are looked at.
            for place in np.ndindex(PROBED, PROBED if asked.transform is not None else 1):
                for name, value in sorted(self.example(*place).items()):
                    digest.update(name.encode() + (value.encode() if isinstance(value, str) else value.tobytes()))
        return digest.hexdigest()
