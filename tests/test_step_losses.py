"""All losses of a batch compile as one graph without a break, and are then what they were."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from imvideoedit.common.errors import UserError
from imvideoedit.nano.readouts import ContentReadouts
from imvideoedit.training.step_losses import StepLosses
from tests.test_methods import ROWS, installed, name_of

KINDS = list({(row.kind, row.options.get("source_stream")): row for row in ROWS}.values())
CASES = [(row, False) for row in KINDS] + [(row, True) for row in KINDS if row.kind.name == "aligned_update"][:1]


def results(losses, method, batch, point):
    """Losses and gradients."""
    found, readings = losses(batch, *point)
    torch.stack([loss_B.mean() for loss_B in (*found.values(), *readings.values())]).sum().backward()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    return found | readings, gradients


@pytest.fixture
def graphs(monkeypatch):
    """Counts graphs; the compiler traces forward and backward, and leaves code generation out."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    return counter


@pytest.mark.slow
@pytest.mark.parametrize(("row", "checkpointed"), CASES, ids=lambda value: name_of(value) if value in KINDS else value)
def test_every_method_is_one_graph_equal_to_its_eager_losses(row, checkpointed, graphs):
    transformer, method = installed(row)
    if checkpointed:
        transformer.train().enable_gradient_checkpointing()
    batch = row.batch()
    point = method.training_point(batch, torch.Generator().manual_seed(0))
    eager, expected = results(StepLosses(transformer, method, None), method, batch, point)
    compiled = StepLosses(transformer, method, None, compiled=True)
    for _ in range(2):
        found, gradients = results(compiled, method, batch, point)
        assert found.keys() == eager.keys() and gradients.keys() == expected.keys()
        for name, value in (eager | expected).items():
            torch.testing.assert_close((found | gradients)[name], value, rtol=1e-5, atol=1e-6)
    assert graphs.frame_count == 1


def test_readouts_and_other_shapes_are_graphs_of_their_own(graphs):
    row = next(row for row in ROWS if row.kind.name == "aligned_update")
    transformer, method = installed(row)
    compiled = StepLosses(transformer, method, ContentReadouts(transformer), compiled=True)
    for frames in (1, 3):
        plain = row.batch(frames=frames)
        labels = {"content": torch.zeros(2, frames, 2, 3, 4, dtype=torch.uint8)}
        for batch in (plain, plain.__class__(**{**vars(plain), "labels": labels, "ids": (f"a{frames}", "b")})):
            point = method.training_point(batch, torch.Generator().manual_seed(0))
            readings = compiled(batch, *point)[1]
            assert set(readings) == (set() if batch is plain else {"color", "kind", "material", "state"})
        compiled(batch, *point)
    assert graphs.frame_count == 4


@pytest.mark.parametrize(
    ("device", "accumulated", "graphs"), [("cuda", 1, True), ("cuda", 2, False), ("cpu", 1, False)]
)
def test_gradients_that_are_accumulated_are_not_replayed_over(device, accumulated, graphs):
    losses = StepLosses(None, None, None, compiled=True)
    losses.place(torch.device(device), accumulated, "32-true")
    assert losses.graphs is graphs


def test_a_step_that_the_compiler_gets_wrong_is_refused():
    StepLosses(None, None, None).place(torch.device("cpu"), 1, "bf16-mixed")
    StepLosses(None, None, None, compiled=True).place(torch.device("cuda"), 1, "bf16-mixed")
    with pytest.raises(UserError, match="32-true"):
        StepLosses(None, None, None, compiled=True).place(torch.device("cpu"), 1, "bf16-mixed")
