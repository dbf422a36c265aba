"""A transformer without what it reads texts by, for methods that bring their own condition."""

from typing import Any, NamedTuple

from diffusers import WanTransformer3DModel
from torch import Tensor, nn


class Dropped(NamedTuple):
    """A part that was taken out: of which module, by what name, and itself."""

    owner: nn.Module
    name: str
    part: nn.Module


class Nothing(nn.Module):
    """In place of a part whose output is added: takes anything, adds a zero."""

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        return x.new_zeros(())


def drop_text(transformer: WanTransformer3DModel, cross_attention: bool) -> list[Dropped]:
    """Take out the text embedder, and the cross-attention with its norm; their weights leave the device.

    Args:
        cross_attention: whether that is taken out, too; else only the text embedder.

    Returns:
        What :func:`restore_text` puts back.
    """
    embedder: Any = transformer.condition_embedder
    dropped = [_exchange(embedder, "text_embedder", Nothing())]
    if cross_attention:
        for block in transformer.blocks:
            dropped += [_exchange(block, "attn2", Nothing()), _exchange(block, "norm2", nn.Identity())]
    return dropped


def restore_text(transformer: WanTransformer3DModel, dropped: list[Dropped]) -> None:
    """Undo :func:`drop_text`."""
    patch_embedding: Any = transformer.patch_embedding
    for owner, name, part in dropped:
        if not _is_meta(part):
            part.to(patch_embedding.weight.device)
        setattr(owner, name, part)


def _exchange(owner: nn.Module, name: str, other: nn.Module) -> Dropped:
    part = owner.get_submodule(name)
    if not _is_meta(part):
        part.to("cpu")
    setattr(owner, name, other)
    return Dropped(owner, name, part)


def _is_meta(part: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in part.parameters())
