"""For ``test_shared_edits``: passes of every method by all processes together, against each process's own alone.

Prints a line for each method: the largest difference, the part of the tokens that this process computed, the part of
what is kept of the source that it kept, and the bytes that it sent within blocks, in those of a token's hidden state.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch.utils._pytree import tree_leaves

from imvideoedit.edit_batch import EditBatch
from imvideoedit.wan.token_split import split_tokens
from tests.test_methods import ROWS, SIGMA, Row, installed, name_of, state_of

FRAMES = 5
EXCHANGE = collectives.all_to_all_single


class Passes:
    """Of one method in a tiny transformer.

    Args:
        heads: of the transformer.
    """

    def __init__(self, row: Row, heads: int) -> None:
        if row.options.get("heads"):
            row = replace(row, options=row.options | {"heads": [[1] * (heads - 1) + [0], [0] * (heads - 1) + [1]]})
        self.transformer, self.method = installed(row, num_attention_heads=heads)
        empty_TD = torch.randn(5, 16, generator=torch.Generator().manual_seed(9))
        self.batch: EditBatch = replace(row.batch(2, FRAMES), empty_TD=empty_TD)
        self.state = state_of(self.method, self.batch)
        self.tokens = self.kept = self.sent = 0
        for block in self.transformer.blocks:
            block.register_forward_pre_hook(self._count)

        def counted(x: torch.Tensor, received: Any, sent: list[int], group: Any) -> torch.Tensor:
            others = sum(sent) - sent[dist.get_rank()]
            self.sent += others * x[0].nbytes
            return EXCHANGE(x, received, sent, group)

        collectives.all_to_all_single = counted

    def _count(self, _: Any, args: tuple[Any, ...]) -> None:
        self.tokens += args[0].shape[0] * args[0].shape[1]

    @torch.no_grad()
    def velocities(self) -> list[torch.Tensor]:
        """Of every branch of guidance."""
        self.tokens = self.sent = 0
        known = self.method.condition(self.transformer, self.batch)
        self.kept = sum(each.nbytes for each in tree_leaves(getattr(known, "recorded", {})) if each is not None)
        named = self.method.branches(self.transformer, self.batch, known)
        return tree_leaves([velocity(self.state, SIGMA) for velocity in named.values()])


def report(row: Row, heads: int) -> str:
    passes = Passes(row, heads)
    alone, tokens, kept = passes.velocities(), passes.tokens, passes.kept
    split_tokens(passes.transformer, torch.device("cpu"))
    shared = passes.velocities()
    largest = max(float((a - b).abs().max()) for a, b in zip(alone, shared, strict=True))
    width = 4 * passes.transformer.patch_embedding.out_channels
    return (
        f"{name_of(row)} {largest:.2e} {passes.tokens / tokens:.6f} {passes.kept / kept if kept else 1:.6f} "
        f"{passes.sent / width / tokens:.6f}"
    )


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for row in ROWS:
        print(report(row, heads=2 if dist.get_world_size() == 2 else 3))
    dist.destroy_process_group()
