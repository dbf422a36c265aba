"""Launches, bytes and FLOPs are counted as a GPU would see them, and foretell what one took."""

import pytest
import torch
from torch import nn

from imvideoedit.benchmark.cards import H200, Card
from imvideoedit.benchmark.gpu_rows import block_rows, long_block_rows
from imvideoedit.benchmark.launches import Count, counted

META = {"device": "meta", "dtype": torch.bfloat16}


def test_views_are_free_and_all_else_is_a_launch_with_what_it_reads_and_writes():
    x, weight = torch.empty(4, 8, **META), torch.empty(16, 8, **META)

    def compute():
        y = x.view(2, 2, 8).transpose(0, 1)[0].unsqueeze(0)  # nothing moves
        z = torch.nn.functional.linear(x, weight)
        torch.empty_like(z)
        return z.add_(1.0), y

    product, addition = 2 * (4 * 8 + 16 * 8 + 4 * 16), 2 * 2 * 4 * 16
    assert counted(compute) == Count(2, product + addition, 2 * 4 * 8 * 16)


def test_what_is_expanded_is_read_once():
    row, x = torch.empty(1, 8, **META), torch.empty(4, 8, **META)
    assert counted(lambda: row.expand(4, 8) * x).bytes == 2 * (8 + 2 * 4 * 8)


def test_attention_and_norms_are_one_kernel_each_as_on_a_gpu():
    query = torch.empty(1, 2, 16, 64, requires_grad=True, **META)
    forward = counted(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))
    assert forward.launches == 1 and forward.flops == 4 * 2 * 16 * 16 * 64
    norm, x = nn.RMSNorm(64, **META), torch.empty(2, 64, **META)
    assert counted(lambda: norm(x)).launches == 1
    assert counted(lambda: norm(x.float())).launches > 4  # no kernel takes two dtypes


def test_gradients_are_counted_also_where_a_block_is_computed_again():
    linear = nn.Linear(8, 8, bias=False, **META)
    x = torch.empty(4, 8, requires_grad=True, **META)
    plain = counted(lambda: linear(x).sum().backward())
    again = counted(
        lambda: torch.utils.checkpoint.checkpoint(lambda x: linear(linear(x)), x, use_reentrant=False).sum().backward()
    )
    product = 2 * 4 * 8 * 8
    assert plain.flops == 3 * product and again.flops in (7 * product, 8 * product)


def test_the_device_works_beside_the_host():
    card = Card("x", bandwidth=1e12, rate=1e14)
    launches, moved, computed = card.parts(Count(10, 1e9, 1e12))
    assert card.seconds(Count(10, 1e9, 1e12)) == max(launches, moved + computed)
    assert card.seconds(Count(10_000, 1e9, 1e12)) == pytest.approx(1000 * launches)


def test_one_h200_took_what_is_foretold_within_a_sixth():
    rows = [*block_rows(), *long_block_rows()]
    assert len(rows) == 10
    for row in rows:
        assert row.measured == pytest.approx(H200.seconds(row.count), rel=1 / 6), row.name
