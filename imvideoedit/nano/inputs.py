"""A method's inputs in the nano world, where all that can be told of an edit is exact.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.methods.base import Method
from imvideoedit.world.edits import OFFERS, Edit

FROM_TARGET = "first_frame"
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
        if OFFERS.get(each.name) == each.kind:
            found[each.name] = each.name
        elif each.from_target:
            found[each.name] = FROM_TARGET
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
    """

    inputs: tuple[Input, ...] = ()
    transform: Callable[[Example, np.random.Generator], Example] | None = None
    identity: str = ""

    @classmethod
    def of(cls, method: Method) -> "Preparation":
        """That of a method, for training.

        Raises:
            UserError: the world lacks an input that it needs.
        """
        inputs = _given(method.inputs)
        if type(method).transform is Method.transform:
            return cls(inputs)
        return cls(inputs, method.transform, f"{method.name} {method.config()}")

    def example(self, edit: Edit, text: str, frames: int, size: tuple[int, int], seed: Sequence[int]) -> Example:
        """A training example.

        Args:
            seed: of the transform's random numbers.

        Raises:
            ValueError: the transform returns other names, types or shapes than it was given.
        """
        source, target, _ = edit.render(frames, size)
        example: Example = {"source": source, "target": target, "prompt": text}
        kinds = {each.name: each.kind for each in self.inputs}
        for name, value in exact_inputs(edit, self.inputs, frames, size).items():
            example[name] = _as_frames(value, kinds[name])
        if self.transform is None:
            return example
        changed = self.transform(dict(example), np.random.default_rng(list(seed)))
        if _forms(changed) != _forms(example):
            raise ValueError(f"transform made {_forms(changed)} of {_forms(example)}; it must keep names and shapes")
        # A transform may return views, such as mirrored ones, which torch does not take.
        return {name: v if isinstance(v, str) else np.ascontiguousarray(v) for name, v in changed.items()}


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
