"""What every method does with the source: computed once, kept or not, in parts or whole, always the same."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.keep_plan import KeepPlan
from imvideoedit.methods.two_stream import TwoStreamMethod
from tests.conftest import tiny_batch
from tests.test_methods import ROWS, SIGMA, every, installed

TWO_STREAM = [row for row in ROWS if issubclass(row.kind, TwoStreamMethod)]


def bytes_of(kept):
    """Of tensors, in memory of their own or of others."""
    return sum(tensor.nbytes for tensor in tree_leaves(kept) if tensor is not None)


@every([row for row in TWO_STREAM if row.options["adapter"] == "full"])
def test_the_source_reaches_the_target_through_the_adapter_only(row):
    transformer, method = installed(row)
    # What all that reads the source passes through.
    last = (".out", "anchor.1") if isinstance(method, AlignedUpdate) else ("to_out",)
    for name, module in method.named_modules():
        if name.endswith(last) and "gate" not in name:
            nn.init.zeros_(module.weight)
            if name == "anchor.1":  # a constant pull would draw to the source, too
                nn.init.zeros_(module.bias)
    batch = tiny_batch()
    other = replace(batch, source_BCFHW=torch.randn_like(batch.source_BCFHW))
    one, two = (method.velocity(transformer, each)(batch.target_BCFHW, SIGMA) for each in (batch, other))
    assert torch.equal(one, two)


@every(TWO_STREAM)
def test_observed_features_change_nothing(row):
    transformer, method = installed(row)
    batch = tiny_batch()
    observed = method.condition(transformer, batch)
    fresh = method.velocity(transformer, batch)
    shared = method.velocity(transformer, batch, observed)
    for sigma in (SIGMA, SIGMA / 2):
        assert torch.equal(fresh(batch.target_BCFHW, sigma), shared(batch.target_BCFHW, sigma))
    if observed is None:
        return
    assert not any(kept is not None and kept.requires_grad for pair in observed.recorded.values() for kept in pair)
    sizes = method.feature_bytes(2 * 3 * 2 * 3)  # two samples
    for index, size in enumerate(sizes):
        assert size.recorded == bytes_of(observed.recorded[index])
    observed.keep = KeepPlan()
    for sigma in (SIGMA, SIGMA / 2):
        with torch.no_grad():
            assert torch.equal(fresh(batch.target_BCFHW, sigma), shared(batch.target_BCFHW, sigma))
    assert not observed.recorded
    for index, size in enumerate(sizes):
        assert size.prepared == bytes_of(observed.prepared[index])


@every([row for row in TWO_STREAM if row.options["source_stream"] == "cached"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("tokens", [1, 12])
def test_frames_that_are_edited_in_parts_are_the_same(row, keep, tokens, monkeypatch):
    transformer, method = installed(row)
    batch = tiny_batch()
    with torch.no_grad():
        whole = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
        monkeypatch.setattr("imvideoedit.methods.two_stream_processor.PART_TOKENS", tokens)
        observed = method.condition(transformer, batch, KeepPlan() if keep else None)
        velocity = method.velocity(transformer, batch, observed)
        for _ in range(2):
            torch.testing.assert_close(velocity(batch.target_BCFHW, SIGMA), whole)
