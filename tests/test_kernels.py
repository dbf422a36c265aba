"""Attention back-ends reach all attention, and compiled blocks compute what the others do."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imvideoedit.common.errors import UserError
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.kernels import NATIVE, choose_attention, compile_blocks
from tests.conftest import awaken, tiny_batch, tiny_transformer

CPU = torch.device("cpu")
SIGMA = torch.tensor([0.3, 0.8])


class Counted(TorchDispatchMode):
    """Counts calls of torch's fused attention on CPUs."""

    fused = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.fused += "flash_attention_for_cpu" in str(func)
        return func(*args, **(kwargs or {}))


def installed(method):
    torch.manual_seed(0)
    transformer = tiny_transformer()
    method.install(transformer)
    awaken(method)
    return transformer


def fused_calls(transformer, method) -> tuple[int, torch.Tensor]:
    batch = tiny_batch()
    with torch.no_grad(), Counted() as counted:
        velocity = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    return counted.fused, velocity


def test_a_back_end_is_used_everywhere():
    method = PredictUpdate()
    transformer = installed(method)
    calls, expected = fused_calls(transformer, method)
    blocks = len(transformer.blocks)
    assert calls == blocks * (2 + 2 + 3)  # frozen, of the source and of the target; Φ₁, Φ₂ and the gate
    try:
        choose_attention(transformer, "_native_math", CPU)
        calls, velocity = fused_calls(transformer, method)
    finally:
        choose_attention(transformer, NATIVE, CPU)
    assert calls == 0
    torch.testing.assert_close(velocity, expected)
    assert fused_calls(transformer, method)[0] == blocks * (2 + 2 + 3)


@pytest.mark.parametrize(("name", "words"), [("fast", "choose one of .*native"), ("flash", "does not work here")])
def test_what_does_not_work_here_is_told_and_leaves_the_native_one(name, words):
    method = PredictUpdate()
    transformer = installed(method)
    _, expected = fused_calls(transformer, method)
    with pytest.raises(UserError, match=words) as raised:
        choose_attention(transformer, name, CPU)
    assert "\n" not in str(raised.value)
    assert torch.equal(fused_calls(transformer, method)[1], expected)


@pytest.mark.parametrize("kind", [PredictUpdate, AlignedUpdate])
def test_compiled_blocks_learn_the_same_also_when_recomputed(kind):
    gradients = []
    for compiled in (False, True):
        torch._dynamo.reset()
        method = kind()
        transformer = installed(method)
        transformer.enable_gradient_checkpointing()
        if compiled:
            compile_blocks(transformer, method.compile_units(), backend="aot_eager")
        losses = method.losses(transformer.train(), tiny_batch(), torch.Generator().manual_seed(0), SIGMA)
        losses["flow_matching"].mean().backward()
        gradients.append([parameter.grad for parameter in method.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
