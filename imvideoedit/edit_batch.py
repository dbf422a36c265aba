"""Edits of one shape, as every method takes them, and what a method asks for besides source and text."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from imvideoedit.common.errors import UserError

OWN = ("source", "target", "prompt", "instruction")  # names that every edit has; no input may take one


@dataclass(frozen=True)
class Input:
    """Something that a method takes besides source and text, declared once in ``Method.inputs``.

    The command line, the page, data sets, the nano world, the adapter's header and the evaluation read it.

    Attributes:
        name: such as ``first_frame``, ``mask`` or ``reference``; a key of ``EditBatch.conditions``.
        kind: ``image``, ``video`` (as many frames as the source), ``mask`` (as many frames as the source, white where
            the edit is) or ``text``.
        encoder: ``vae`` gives latents ``[B, C, F, H, W]``, of one frame for an image; ``text`` the text encoder's
            embeddings ``[B, T, D]``; ``raw`` pixels at the model's size: ``[B, 3, F, H, W]`` in [-1, 1], of a mask
            ``[B, 1, F, H, W]`` in [0, 1]; ``clip`` the tokens ``[B, I, D]`` of an image-to-video model's image encoder.
            Left empty: ``text`` for a text, ``raw`` for a mask, ``vae`` for others.
        required: whether an edit needs it. An optional one that is not given is missing in the conditions.
        from_target: in training, data without this image give the target's first frame.

    Raises:
        ValueError: no such kind or encoder, one that does not go with the kind, or a name that every edit has.
    """

    name: str
    kind: Literal["image", "video", "mask", "text"]
    encoder: Literal["", "vae", "text", "raw", "clip"] = ""
    required: bool = True
    from_target: bool = False

    def __post_init__(self) -> None:
        fitting = {"image": ("vae", "raw", "clip"), "video": ("vae", "raw"), "mask": ("raw",), "text": ("text",)}
        if not self.name.isidentifier() or self.name in OWN:
            raise ValueError(f"an input cannot be called {self.name!r}")
        if self.kind not in fitting:
            raise ValueError(f"input {self.name} has kind {self.kind!r}; choose {', '.join(fitting)}")
        if not self.encoder:
            object.__setattr__(self, "encoder", fitting[self.kind][0])
        if self.encoder not in fitting[self.kind]:
            raise ValueError(f"input {self.name} is of kind {self.kind}, which has no encoder {self.encoder!r}")
        if self.from_target and self.kind != "image":
            raise ValueError(f"input {self.name} is of kind {self.kind}; only an image can be the target's first frame")


def check_inputs(declared: Sequence[Input], given: Collection[str], what: str) -> None:
    """See that an edit has what a method needs, and nothing that it does not know.

    Args:
        given: names.
        what: takes the inputs, such as ``the adapter x.safetensors``, for the error.

    Raises:
        UserError: a required input is missing, or one is unknown.
    """
    names = {each.name for each in declared}
    known = f"it takes {', '.join(sorted(names))}" if names else "it takes none"
    for name in sorted(set(given) - names):
        raise UserError(f"{what} does not know the input {name}; {known}")
    for each in declared:
        if each.required and each.name not in given:
            raise UserError(f"{what} needs the input {each.name} ({each.kind}), which is not given")


@dataclass(frozen=True)
class EditBatch:
    """Edits of one shape, all as normalised latents and text embeddings.

    Attributes:
        source_BCFHW: clean source.
        target_BCFHW: clean edited target; None when it is to be sampled.
        text_BTD: edited prompt, which describes the scene after the edit; or what the method's reader makes of the text
            and of what it sees.
        conditions: the method's inputs by name, encoded as their :class:`Input` says.
        labels: what the data know of the target by name, for auxiliary losses of training, such as ``content``.
        empty_TD: embedding of the empty text, where training may leave texts out or sampling has guidance; may be
            ``[B, T, D]``, one for each sample.
        ids: names of the B pairs, where they have any.
    """

    source_BCFHW: Tensor
    target_BCFHW: Tensor | None
    text_BTD: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    empty_TD: Tensor | None = None
    ids: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "EditBatch":
        """A copy whose tensors, nested ones too, are on ``device``."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **tree_map_only(Tensor, lambda tensor: tensor.to(device), values))

    def without_text(self) -> "EditBatch":
        """The same edits with the empty text.

        Raises:
            ValueError: the batch has no empty text.
        """
        if self.empty_TD is None:
            raise ValueError("this batch has no embedding of the empty text")
        return replace(self, text_BTD=self.empty_TD.expand(len(self.source_BCFHW), -1, -1))
