"""A pass that several processes share: each runs the blocks on its own part of the tokens.

Only the frozen 3D attention of a block mixes tokens. There diffusers' Ulysses attention exchanges tokens for heads, so
that each process attends over all tokens with its share of the heads. Parts end where frames end, for adapters that
work on whole frames, and are uneven where the frames are. diffusers' own plan cuts at any token, and its
``enable_parallelism`` fails without an accelerator, so the attention is all that is taken of it.

Shapes: B batch, L tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, WanTransformer3DModel
from diffusers.models._modeling_parallel import ParallelConfig
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional

from imvideoedit.common.errors import UserError

SPLIT = "_token_split"  # attribute of a transformer whose passes are shared


class RotaryPair(tuple):
    """``(cos, sin)``, each ``[1 or B, L, ...]``, with what else a method's pass tells the blocks as attributes."""

    def of_tokens(self, own: slice) -> Self:
        """The pair for these tokens alone."""
        part = type(self)(table[:, own] for table in self)
        part.__dict__.update(self.__dict__)
        return part


@dataclass(frozen=True)
class TokenSplit:
    """Which tokens are whose. Every process calls the same methods in the same order.

    Args:
        group: of the processes.
    """

    group: Any

    @property
    def count(self) -> int:
        """Of the processes."""
        return dist.get_world_size(self.group)

    def parts(self, tokens: int, unit: int) -> list[slice]:
        """The tokens of each process; where they are uneven, the first ones have a unit more.

        Args:
            unit: tokens that stay together, such as a frame's.

        Raises:
            UserError: there are fewer units than processes.
        """
        units, count = tokens // unit, self.count
        if units < count:
            raise UserError(
                f"{count} processes cannot share a window of {units} latent frame{'s' * (units > 1)}; start fewer "
                "(--nproc-per-node), or edit more frames at once (--max-frames)"
            )
        ends = [unit * (index * (units // count) + min(index, units % count)) for index in range(count + 1)]
        return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]

    def run(
        self,
        blocks: Callable[..., Tensor],
        hidden_BLD: Tensor,
        text_BTD: Tensor,
        rows: Any,
        rotary_of: Callable[[int], tuple[Tensor, ...]],
        unit: int,
    ) -> Tensor:
        """What all blocks make of all tokens, each process of its own part.

        Args:
            blocks: runs them on a part, from its hidden states, text, modulation rows and pairs.
            rows: ``[B, 6, D]``, or ``[B, L, 6, D]``; or a method's own, of which ``of_tokens`` makes a part's.
            rotary_of: makes the pair of a block from its index, just before it runs.
            unit: see :meth:`parts`.
        """
        parts = self.parts(hidden_BLD.shape[1], unit)
        own = parts[dist.get_rank(self.group)]
        if not isinstance(rows, Tensor):
            rows = rows.of_tokens(own)
        elif rows.ndim == 4:
            rows = rows[:, own]
        own_BLD = blocks(hidden_BLD[:, own], text_BTD, rows, lambda index: of_tokens(rotary_of(index), own))
        return self._gathered(own_BLD, [part.stop - part.start for part in parts])

    def _gathered(self, own_BLD: Tensor, lengths: list[int]) -> Tensor:
        """All tokens, in every process, from each one's own."""
        # Padded: gloo gathers tensors of one size.
        padded_BLD = functional.pad(own_BLD, (0, 0, 0, max(lengths) - own_BLD.shape[1])).contiguous()
        every = [torch.empty_like(padded_BLD) for _ in lengths]
        dist.all_gather(every, padded_BLD, group=self.group)
        return torch.cat([each[:, :length] for each, length in zip(every, lengths, strict=True)], dim=1)


def split_tokens(transformer: WanTransformer3DModel, device: torch.device) -> None:
    """Share the passes of a transformer among all processes of the default group, for good and without gradients.

    Each process calls it for its own copy, behind the installation of a method, and then runs the same passes.

    Args:
        device: of this process's computation.

    Raises:
        UserError: the attention's heads, or its back-end, cannot be shared.
    """
    config: Any = transformer.config
    count, heads = dist.get_world_size(), config.num_attention_heads
    if not _shared_evenly(heads, count):
        fitting = [str(number) for number in range(2, count) if _shared_evenly(heads, number)]
        raise UserError(
            f"{count} processes cannot share {heads} attention heads; start {' or '.join(fitting[-2:]) or 1} "
            "(--nproc-per-node)"
        )
    blocks: list[Any] = list(transformer.blocks)
    backend = blocks[0].attn1.processor._attention_backend
    name = _AttentionBackendRegistry.get_active_backend()[0] if backend is None else AttentionBackendName(backend)
    if not _AttentionBackendRegistry._is_context_parallel_available(name):
        raise UserError(f"attention={name.value} cannot be shared by processes; choose native or flash")
    mesh = init_device_mesh(device.type, (1, count), mesh_dim_names=("ring", "ulysses"))
    shared = ParallelConfig(ContextParallelConfig(ulysses_degree=count, ulysses_anything=True, mesh=mesh))
    shared.setup(dist.get_rank(), count, device, mesh=mesh)
    for block in blocks:
        block.attn1.processor._parallel_config = shared
    transformer.__dict__[SPLIT] = TokenSplit(mesh.get_group("ulysses"))


def split_of(transformer: WanTransformer3DModel) -> TokenSplit | None:
    """How the passes of a transformer are shared; None where they are this process's own."""
    return vars(transformer).get(SPLIT)


def processes_of(transformer: WanTransformer3DModel) -> int:
    """How many processes share the passes of a transformer."""
    split = split_of(transformer)
    return 1 if split is None else split.count


def of_tokens(rotary: tuple[Tensor, ...], own: slice) -> tuple[Tensor, ...]:
    """A rotary pair for these tokens alone, with what else it tells."""
    return (rotary if isinstance(rotary, RotaryPair) else RotaryPair(rotary)).of_tokens(own)


def _shared_evenly(heads: int, count: int) -> bool:
    """Whether diffusers' attention shares heads: those that fill up the last process's must be fewer than its own."""
    return -heads % count < -(-heads // count)
