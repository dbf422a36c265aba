"""What is particular to the aligned update: the source token at its own place, and the pull to the source."""

from types import SimpleNamespace

import torch
from torch import nn

from imvideoedit.layers.rope import plane_table
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.wan.forward import unpatch
from tests.conftest import tiny_batch, tiny_transformer
from tests.test_methods import SIGMA, installed, two_stream

ROW = two_stream(AlignedUpdate, {"source_stream": "cached"})


def test_the_aligned_update_reads_the_source_token_at_its_own_place():
    """With Φ₁ silent, one source token moves the velocity through its own place in the block and nowhere else."""
    transformer, method = installed(ROW, num_layers=1)
    nn.init.zeros_(method.blocks[0].phi_1.attention.to_out.weight)
    h_BLD, source_BLD, text_BTD = torch.randn(1, 12, 24), torch.randn(1, 12, 24), torch.randn(1, 5, 24)
    context = SimpleNamespace(text_BTD=text_BTD, grid=(2, 2, 3), plane=lambda position: _plane(transformer))
    moved_BLD = source_BLD.clone()
    moved_BLD[0, 7] = torch.randn(24)
    before, after = (
        method.blocks[0].edit(h_BLD, torch.zeros_like(h_BLD), context, method.blocks[0].prepare(source, None, context))
        for source in (source_BLD, moved_BLD)
    )
    changed = (before - after).abs().amax(-1)[0]
    assert changed[7] > 1e-3 and changed[[i for i in range(12) if i != 7]].max() == 0


def test_a_full_pull_returns_the_source():
    """With M = 1 the velocity leads from x straight to the source, whatever the transformer says."""
    transformer, method = installed(ROW)
    nn.init.zeros_(method.anchor[1].weight)
    nn.init.constant_(method.anchor[1].bias, 20.0)
    batch = tiny_batch()
    velocity = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    arrived = batch.target_BCFHW - SIGMA[:, None, None, None, None] * velocity
    torch.testing.assert_close(arrived, batch.source_BCFHW, rtol=1e-4, atol=1e-4)


def test_pulls_lie_as_the_transformers_last_layer_lays_out_its_patches():
    transformer = tiny_transformer()
    tokens = torch.randn(2, 3 * 2 * 3, 4 * 4)
    kept = {}
    transformer.proj_out.register_forward_hook(lambda *_: tokens)
    transformer.register_forward_hook(lambda module, args, out: kept.update(out=out[0]))
    transformer(torch.randn(2, 4, 3, 4, 6), torch.tensor([5.0, 5.0]), torch.randn(2, 5, 16), return_dict=False)
    assert torch.equal(unpatch(tokens, torch.Size((2, 4, 3, 4, 6)), (1, 2, 2)), kept["out"])


def _plane(transformer):
    split = (transformer.rope.t_dim, transformer.rope.h_dim, transformer.rope.w_dim)
    tables = (transformer.rope.freqs_cos, transformer.rope.freqs_sin)
    return tuple(plane_table(table, split, 2, 3, "aligned") for table in tables)
