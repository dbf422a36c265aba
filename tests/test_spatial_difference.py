import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imvideoedit.layers.attention import Attention
from imvideoedit.layers.low_rank import LowRank, LowRankDelta
from imvideoedit.layers.rope import apply_rotary, plane_table
from imvideoedit.layers.spatial_difference import SpatialDifference, fold_frames, unfold_frames
from tests.conftest import awaken, tiny_transformer

WIDTH = 24


def make_phi(norm=None, adapter="full", rank=4):
    block = tiny_transformer().blocks[0]
    return SpatialDifference(Attention(block.attn1, adapter, rank), norm or nn.LayerNorm(WIDTH)), block


def plane(h, w, position="running"):
    rope = tiny_transformer().rope
    split = (rope.t_dim, rope.h_dim, rope.w_dim)
    return tuple(plane_table(table, split, h, w, position) for table in (rope.freqs_cos, rope.freqs_sin))


grids = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))


@settings(max_examples=15, deadline=None)
@given(grids, st.integers(1, 2), st.data())
def test_no_frame_sees_another(grid, batch, data):
    frames, h, w = grid
    phi, _ = make_phi()
    streams = torch.randn(2 * batch, frames * h * w, WIDTH)
    before = phi(streams, None, grid, plane(h, w))
    changed = data.draw(st.integers(0, frames - 1))
    streams.unflatten(1, grid)[:, changed] += 1
    same = (phi(streams, None, grid, plane(h, w)) == before).unflatten(1, grid).flatten(2).all(-1).all(0)
    assert [frame for frame in range(frames) if not same[frame]] == [changed]


@settings(max_examples=15, deadline=None)
@given(grids)
def test_one_frame_and_many_are_one_code_path(grid):
    frames, h, w = grid
    phi, _ = make_phi()
    streams = torch.randn(2, frames * h * w, WIDTH)
    alone = [phi(part, None, (1, h, w), plane(h, w)) for part in streams.chunk(frames, dim=1)]
    torch.testing.assert_close(phi(streams, None, grid, plane(h, w)), torch.cat(alone, dim=1))


@settings(max_examples=15, deadline=None)
@given(grids, st.integers(1, 2))
def test_a_lone_target_gets_what_it_gets_in_the_joint_pass(grid, batch):
    phi, _ = make_phi()
    target, source = torch.randn(2, batch, grid[0] * grid[1] * grid[2], WIDTH)
    joint = phi(torch.cat([target, source]), None, grid, plane(*grid[1:]))
    seen = phi.source_keys_values(source, grid, plane(*grid[1:]))
    torch.testing.assert_close(phi(target, seen, grid, plane(*grid[1:])), joint[:batch])


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_phi_is_the_frozen_attention_on_one_wide_picture(adapter):
    """The paper's reading: both streams side by side, h x 2w, through the stock attention with stock positions."""
    frames, h, w = 2, 2, 3
    phi, block = make_phi(nn.Identity(), adapter)
    target, source = torch.randn(2, 1, frames * h * w, WIDTH)
    wide = torch.cat([stream.reshape(frames, h, w, WIDTH) for stream in (target, source)], dim=2)
    rotary = tiny_transformer().rope(torch.empty(1, 4, 1, 2 * h, 2 * 2 * w))
    expected = block.attn1(wide.flatten(1, 2), None, None, rotary).reshape(frames, h, 2 * w, WIDTH)
    streams = phi(torch.cat([target, source]), None, (frames, h, w), plane(h, w))
    for stream, half in zip(streams, expected.split(w, dim=2), strict=True):
        torch.testing.assert_close(stream, half.reshape(frames * h * w, WIDTH))


def test_phi_normalises_each_stream_before_it_attends():
    norm = nn.LayerNorm(WIDTH)
    awaken(norm)
    phi, block = make_phi(norm)
    bare = SpatialDifference(Attention(block.attn1, "full", 1), nn.Identity())
    streams = torch.randn(2, 6, WIDTH)
    torch.testing.assert_close(
        phi(streams, None, (1, 2, 3), plane(2, 3)), bare(norm(streams), None, (1, 2, 3), plane(2, 3))
    )


def test_aligned_streams_share_columns_and_running_ones_do_not():
    cos, _ = plane(2, 3, "aligned")
    target, source = cos.chunk(2, dim=1)
    assert torch.equal(target, source)
    target, source = plane(2, 3, "running")[0].chunk(2, dim=1)
    assert not torch.equal(target, source)
    assert torch.equal(target, cos[:, :6])


def test_aligned_streams_are_exchangeable():
    phi, _ = make_phi()
    target, source = torch.randn(2, 1, 12, WIDTH)
    grid = (2, 2, 3)
    there = phi(torch.cat([target, source]), None, grid, plane(2, 3, "aligned"))
    back = phi(torch.cat([source, target]), None, grid, plane(2, 3, "aligned"))
    torch.testing.assert_close(there, back.flip(0))


def test_a_grid_beyond_the_positions_is_refused():
    plane(4, 32, "running")
    with pytest.raises(ValueError, match="64 rotary positions"):
        plane(4, 33, "running")
    plane(4, 64, "aligned")
    with pytest.raises(ValueError, match="65x1"):
        plane(65, 1, "aligned")


def test_rotation_keeps_lengths_and_turns_by_the_difference():
    cos, sin = plane(1, 8)
    x = torch.randn(1, 1, 2, 12).expand(1, 16, 2, 12)
    turned = apply_rotary(x, cos, sin)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    scores = torch.einsum("blne,bmne->blm", turned, turned)[0]
    for offset in range(1, 4):
        torch.testing.assert_close(scores.diagonal(offset), scores.diagonal(offset)[:1].expand(16 - offset))


def test_folding_is_undone():
    x = torch.randn(2, 12, 5)
    folded = fold_frames(x, (3, 2, 2))
    assert folded.shape == (6, 4, 5)
    assert torch.equal(folded[4], x[1, 4:8])
    assert torch.equal(unfold_frames(folded, (3, 2, 2)), x)


def test_low_rank_starts_at_nothing_and_owns_only_its_delta():
    linear = nn.Linear(6, 4)
    adapted = LowRankDelta(linear, rank=2)
    x = torch.randn(3, 6)
    assert torch.equal(adapted(x), linear(x))
    assert {name: tuple(p.shape) for name, p in adapted.named_parameters()} == {
        "delta.down.weight": (2, 6),
        "delta.up.weight": (4, 2),
    }
    awaken(adapted)
    expected = linear(x) + x @ adapted.delta.down.weight.T @ adapted.delta.up.weight.T
    torch.testing.assert_close(adapted(x), expected)
    assert torch.equal(LowRank(6, 4, 2, bias=True)(x), torch.zeros(3, 4))


def test_full_copies_are_independent_of_the_frozen_weights():
    phi, block = make_phi()
    assert torch.equal(phi.attention.to_q.weight, block.attn1.to_q.weight)
    awaken(phi)
    assert not torch.equal(phi.attention.to_q.weight, block.attn1.to_q.weight)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_autocast_computes_in_half_precision(adapter):
    phi, block = make_phi(adapter=adapter)
    streams = torch.randn(2, 6, WIDTH)
    expected = phi(streams, None, (1, 2, 3), plane(2, 3))
    block.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        half = phi(streams, None, (1, 2, 3), plane(2, 3))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.05)
