"""Whole blocks compile without a break, one compilation serves all of them, and they compute what eager ones do."""

import copy

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch._dynamo.testing import CompileCounterWithBackend

from imvideoedit.methods.keep_plan import KeepPlan
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.training.step_losses import StepLosses
from imvideoedit.wan.kernels import compile_blocks, suited_kernel
from tests.conftest import awaken, tiny_batch, tiny_transformer
from tests.test_methods import ROWS, installed, name_of

KINDS = list({(row.kind, row.options.get("source_stream"), row.options.get("adapter")): row for row in ROWS}.values())
SIGMA = torch.tensor([0.3, 0.8])
EVERYTHING = KeepPlan()


@pytest.fixture
def graphs():
    """Counts graphs; the compiler traces forward and backward, and leaves code generation out."""
    torch._dynamo.reset()
    return CompileCounterWithBackend("aot_eager")


def learned(row, transformer, method):
    """Losses and gradients."""
    losses = method.losses(transformer, row.batch(), torch.Generator().manual_seed(0), SIGMA)
    torch.stack([loss_B.mean() for loss_B in losses.values()]).sum().backward()
    found = losses | {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("row", KINDS, ids=name_of)
def test_one_graph_for_each_kind_of_pass_serves_all_blocks(row, graphs):
    transformer, method = installed(row)
    transformer.train()
    expected = learned(row, transformer, method)
    compile_blocks(transformer, method.compile_units(), backend=graphs)
    for checkpointed in (True, False):
        transformer.gradient_checkpointing = False
        if checkpointed:
            transformer.enable_gradient_checkpointing()
        found = learned(row, transformer, method)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
        # A source's pass has no gradient; of two blocks, neither makes a graph of its own. Units have one each.
        passes = 2 if row.options.get("source_stream") == "cached" or "teacher" in passes_of(row) else 1
        assert graphs.frame_count <= passes + len(method.compile_units())


def passes_of(row):
    """FreeProp's teacher is a pass without a gradient."""
    distils = row.kind.name == "freeprop" and (row.options.get("motion", 5.0) or row.options.get("consistency", 1.0))
    return {"teacher"} if distils else set()


def edit_twice(transformer, method, keep=EVERYTHING):
    batch = tiny_batch()
    with torch.no_grad():
        velocity = method.velocity(transformer, batch, method.condition(transformer, batch, keep))
        return [velocity(batch.target_BCFHW, SIGMA) for _ in range(2)]


@pytest.mark.parametrize("offloaded", [False, True])
def test_an_edit_makes_three_graphs_also_where_blocks_are_moved(offloaded, graphs):
    row = next(row for row in ROWS if row.kind.name == "predict_update")
    transformer, method = installed(row)
    expected = edit_twice(transformer, method)
    compile_blocks(transformer, backend=graphs)
    if offloaded:
        apply_group_offloading(transformer, torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    for one, two in zip(edit_twice(transformer, method), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count == 3  # the source; the first pass, which keeps what it prepares; all others


@pytest.mark.slow
def test_an_edit_in_parts_that_keeps_some_blocks_is_the_same_compiled(graphs, monkeypatch):
    monkeypatch.setattr("imvideoedit.methods.two_stream_processor.PART_TOKENS", 12)
    row, keep = next(row for row in ROWS if row.kind.name == "predict_update"), KeepPlan(("prepared", "recorded"))
    transformer, method = installed(row)
    expected = edit_twice(transformer, method, keep)
    compile_blocks(transformer, backend=graphs)
    for one, two in zip(edit_twice(transformer, method, keep), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count == 5  # the source; of each of the two blocks the first pass, and all others


@pytest.mark.slow
def test_blocks_with_other_temporal_heads_share_a_graph(graphs):
    row = next(row for row in ROWS if row.options.get("heads"))
    transformer, method = installed(row)
    batch = row.batch()
    with torch.no_grad():
        velocity = method.velocity(transformer, batch)
        expected = velocity(batch.target_BCFHW, SIGMA)
        compile_blocks(transformer, backend=graphs)
        torch.testing.assert_close(velocity(batch.target_BCFHW, SIGMA), expected, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count == 1


def test_a_copy_of_a_compiled_transformer_runs_its_own_weights(graphs):
    row = next(row for row in ROWS if row.kind.name == "aligned_update")
    transformer, method = installed(row)
    compile_blocks(transformer, backend=graphs)
    copied = copy.deepcopy(transformer)
    block = copied.blocks[0]
    assert block.forward.__self__ is block and transformer.blocks[0].forward.__self__ is transformer.blocks[0]


@pytest.mark.parametrize(
    ("able", "sharded", "compiled"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_auto_compiles_where_that_can_be_done(able, sharded, compiled, graphs, monkeypatch, capsys):
    row = next(row for row in ROWS if row.kind.name == "aligned_update")
    transformer, method = installed(row)
    monkeypatch.setattr("imvideoedit.training.step_losses.can_compile", lambda device: able)
    losses = StepLosses(transformer, method, None, blocks="auto")
    losses.place(torch.device("cpu"), 1, "32-true", sharded)
    for block in transformer.blocks:
        assert ("forward" in vars(block)) is compiled
    for _ in range(2):
        with losses.announced(tiny_batch()):
            pass
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 if compiled else 0)  # before and after the first batch alone


def test_where_the_compiler_fails_unasked_the_blocks_run_as_they_were(monkeypatch, capsys):
    def broken(graph, inputs):
        raise RuntimeError("no kernel for this\nand more")

    torch._dynamo.reset()
    row = next(row for row in ROWS if row.kind.name == "aligned_update")
    transformer, method = installed(row)
    batch = row.batch()
    point = method.training_point(batch, torch.Generator().manual_seed(0))
    expected, _ = StepLosses(transformer, method, None)(batch, *point)
    losses = StepLosses(transformer, method, None, blocks="auto")
    compile_blocks(transformer, method.compile_units(), backend=broken)
    found, _ = losses(batch, *point)
    assert torch.equal(found["flow_matching"], expected["flow_matching"])
    assert "cannot be compiled here" in capsys.readouterr().out
    assert not any("forward" in vars(block) for block in transformer.blocks)


@pytest.mark.slow
def test_generated_code_in_bfloat16_on_a_cpu_is_right():
    """Of a step compiled as a whole it is not, and that is refused; of blocks alone it is."""
    # Of this width, with these tokens and the plain attention, code of 512 bits gives a norm's weight NaN.
    transformer, method = tiny_transformer(attention_head_dim=32, num_layers=1), PredictUpdate()
    batch = tiny_batch(frames=1, height=16, width=16)
    method.install(transformer)
    awaken(method)

    def step():
        method.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), suited_kernel(transformer, batch.source_BCFHW):
            loss = method.losses(transformer, batch, torch.Generator().manual_seed(0))["flow_matching"].mean()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in method.parameters())]

    eager = step()
    compile_blocks(transformer, method.compile_units())
    for a, b in zip(eager, step(), strict=True):
        assert b.isfinite().all() and (a - b).norm() <= 0.1 * a.norm() + 1e-4
