"""Edits of one shape, as every method takes them."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class EditBatch:
    """Edits of one shape, all as normalised latents and text embeddings.

    Attributes:
        source_BCFHW: clean source.
        target_BCFHW: clean edited target; None when it is to be sampled.
        text_BTD: edited prompt, which describes the scene after the edit.
        labels_BFhwA: what each token of the target shows, where the data know it; for auxiliary losses of training.
        empty_TD: embedding of the empty text, where training may leave texts out.
        ids: names of the B pairs, where they have any.
    """

    source_BCFHW: Tensor
    target_BCFHW: Tensor | None
    text_BTD: Tensor
    labels_BFhwA: Tensor | None = None
    empty_TD: Tensor | None = None
    ids: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "EditBatch":
        """A copy whose tensors are on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        there: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **there)
