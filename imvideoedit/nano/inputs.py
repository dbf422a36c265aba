"""A method's inputs in the nano world, where all that can be told of an edit is exact.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.data.film import Film, developed, difference, draw_film
from imvideoedit.edit_batch import Input
from imvideoedit.methods.base import Method
from imvideoedit.methods.reader import Reader
from imvideoedit.world.edits import OFFERS, Edit
from imvideoedit.world.grammar import without_motion

FROM_TARGET = "first_frame"
FILMED = 2  # times the side of a training picture: the side of the still that a film shows
Example = dict[str, Any]
"""Of training, before it is encoded: as :meth:`imvideoedit.methods.base.Method.transform` describes it."""


def exact_inputs(
    edit: Edit, declared: Sequence[Input], frames: int, size: tuple[int, int]
) -> dict[str, np.ndarray | str]:
    """The declared inputs that the nano world can tell of an edit: images, masks and texts as ``Edit.inputs`` has them.

    Raises:
        UserError: a required one is none of them.
    """
    names = offered(declared)
    told = edit.inputs(frames, size) if names else {}
    return {name: told[offer] for name, offer in names.items()}


def offered(declared: Sequence[Input]) -> dict[str, str]:
    """What the nano world offers for each declared input, by the input's name; optional ones may be missing.

    Raises:
        UserError: it has nothing for a required one.
    """
    found = {}
    for each in declared:
        if each.from_target:
            found[each.name] = FROM_TARGET
        elif OFFERS.get(each.name) == each.kind:
            found[each.name] = each.name
        elif each.required:
            offers = ", ".join(f"{name} ({kind})" for name, kind in OFFERS.items())
            raise UserError(f"the nano world has no {each.name} ({each.kind}), which the method needs; it has {offers}")
    return found


@dataclass(frozen=True)
class Preparation:
    """What a method makes of a training pair before it is encoded.

    Args:
        inputs: that go with the pair, where the world offers them.
        transform: changes an example; None leaves it.
        identity: names the transform, for a cache: the method and its config.
        film: clips are filmed from stills (see :mod:`imvideoedit.data.film`), not rendered.
        instructed: texts are instructions.
        ahead: clips of what stays as it is have the frames behind, see ``Method.transform``.
        reader: the method's own, for texts.
    """

    inputs: tuple[Input, ...] = ()
    transform: Callable[[Example, np.random.Generator], Example] | None = None
    identity: str = ""
    film: bool = False
    instructed: bool = False
    ahead: bool = False
    reader: Reader | None = None

    @classmethod
    def of(cls, method: Method, film: bool = False) -> "Preparation":
        """That of a method, for training.

        Raises:
            UserError: the world lacks an input that it needs, or it derives what is not encoded here.
        """
        if method.derived:
            made = ", ".join(each.name for each in method.derived)
            raise UserError(f"the nano world's pairs come without {made}, which {method.name} needs; give data=pairs")
        inputs = _given(method.data_inputs)
        how: dict[str, Any] = {"film": film, "instructed": method.reads_instructions}
        if method.reader is not None:
            return cls(inputs, reader=method.reader, identity=method.reader.name, **how)
        if not method.changes_examples:
            return cls(inputs, **how)
        return cls(inputs, method.transform, f"{method.name} {method.config()}", ahead=method.looks_ahead, **how)

    def exposed(
        self, edit: Edit, text: str, frames: int, size: tuple[int, int], seed: Sequence[int]
    ) -> "Example | Exposed":
        """A training example, or of a film what :meth:`developed` makes one of.

        Args:
            seed: of the film's and the transform's random numbers.

        Raises:
            ValueError: the transform returns other names, types or shapes than it was given.
        """
        if not self.film:
            return self._transformed(self._exact(edit, text, frames, size), seed)
        stills = self._exact(edit, text, 1, (FILMED * size[0], FILMED * size[1]))
        changed = difference(stills["source"][0], stills["target"][0])
        film = draw_film(np.random.default_rng([*seed, 1]), frames, changed)
        kept = self._exact(edit, text, 1, size) if self.inputs else {"prompt": text}
        return Exposed(film, stills, kept, tuple(seed))

    def developed(
        self, found: "Sequence[Example | Exposed]", size: tuple[int, int], device: torch.device | None = None
    ) -> list[Example]:
        """Examples as they are, and of films their clips, made on a device.

        Raises:
            ValueError: see :meth:`exposed`.
        """
        exposed = [each for each in found if isinstance(each, Exposed)]
        if not exposed:
            return [each for each in found if not isinstance(each, Exposed)]
        both = [np.concatenate([each.stills[side][0] for side in ("source", "target")], -1) for each in exposed]
        stills_BHWC = torch.from_numpy(np.stack(both)).to(device)
        clips = developed([each.film for each in exposed], stills_BHWC, size).cpu().numpy()
        examples = [
            self._filmed(each, size, clip[..., :3], clip[..., 3:]) for each, clip in zip(exposed, clips, strict=True)
        ]
        return [self._transformed(example, each.seed) for example, each in zip(examples, exposed, strict=True)]

    def _transformed(self, example: Example, seed: Sequence[int]) -> Example:
        if self.transform is None:
            return example
        changed = self.transform(dict(example), np.random.default_rng(list(seed)))
        if _forms(changed) != _forms({name: value for name, value in example.items() if name != "ahead"}):
            raise ValueError(f"transform made {_forms(changed)} of {_forms(example)}; it must keep names and shapes")
        # A transform may return views, such as mirrored ones, which torch does not take.
        return {name: v if isinstance(v, str) else np.ascontiguousarray(v) for name, v in changed.items()}

    def _exact(self, edit: Edit, text: str, frames: int, size: tuple[int, int]) -> Example:
        """Rendered."""
        further = self.ahead and frames > 1 and edit.source == edit.target
        source, target, _ = edit.render(2 * frames - 1 if further else frames, size)
        behind = {"ahead": source[frames:]} if further else {}
        source, target = source[:frames], target[:frames]
        kinds = {each.name: each.kind for each in self.inputs}
        told = exact_inputs(edit, self.inputs, frames, size)
        inputs = {name: _as_frames(value, kinds[name]) for name, value in told.items()}
        return {"source": source, "target": target, "prompt": text, **inputs, **behind}

    def _filmed(self, each: "Exposed", size: tuple[int, int], source: np.ndarray, target: np.ndarray) -> Example:
        """A film with its inputs; what texts say of motion, which no still shows, is left out."""
        example: Example = {"source": source, "target": target, "prompt": without_motion(each.kept["prompt"])}
        offers, kinds = offered(self.inputs), {each.name: each.kind for each in self.inputs}
        for name, value in each.kept.items():
            if kinds.get(name) == "mask":
                mask = each.film.of(each.stills[name][0, :, :, None], size)[..., 0]
                example[name] = (mask > 127).astype(np.uint8) * 255
            elif offers.get(name) == FROM_TARGET:
                example[name] = target[:1]
            elif name in kinds:
                example[name] = without_motion(value) if isinstance(value, str) else value
        return example


@dataclass(frozen=True)
class Exposed:
    """What a film is made of.

    Attributes:
        stills: ``FILMED`` times as large as the clip.
        kept: inputs and texts at the clip's size.
        seed: of the transform.
    """

    film: Film
    stills: Example
    kept: Example
    seed: tuple[int, ...]


def _given(declared: Sequence[Input]) -> tuple[Input, ...]:
    names = offered(declared)
    return tuple(each for each in declared if each.name in names)


def _as_frames(value: np.ndarray | str, kind: str) -> np.ndarray | str:
    """Images with one frame, masks as 0 and 255."""
    if isinstance(value, str):
        return value
    return value.astype(np.uint8) * 255 if kind == "mask" else value[None]


def _forms(example: Example) -> dict[str, str]:
    return {
        name: "text" if isinstance(value, str) else f"{value.dtype} {list(value.shape)}"
        for name, value in sorted(example.items())
    }
