"""Muon and AdamW as one optimizer: who moves what, learning rates, and resuming from a state."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from imvideoedit.training import optimizers
from imvideoedit.training.optimizers import MuonWithAdamW, adamw_8bit


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def descend(net: nn.Module, optimizers, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        torch.manual_seed(step)
        net(torch.randn(5, 6)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_it_is_torchs_muon_on_matrices_and_adamw_elsewhere():
    ours, theirs = model(), model()
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    others = [p for p in theirs.parameters() if p.ndim != 2]
    parts = [
        Muon(matrices, 0.02, 0.1, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, 0.01, (0.9, 0.98), weight_decay=0.1),
    ]
    descend(ours, [MuonWithAdamW(ours.parameters(), 0.01, weight_decay=0.1)], 4)
    descend(theirs, parts, 4)
    for a, b, start in zip(ours.parameters(), theirs.parameters(), model().parameters(), strict=True):
        moved = (b - start).norm()
        # torch rounds its updates to bfloat16, of eight bits
        assert 0 < moved and (a - b).norm() < (0.05 if a.ndim == 2 else 1e-3) * moved


def test_bfloat16_turns_an_update_by_little(monkeypatch):
    """Newton-Schulz iterations change little by rounding to eight bits."""
    moves = []
    for precision in ("32-true", "bf16-mixed"):
        monkeypatch.setattr(optimizers, "fast_precision", lambda precision=precision: precision)
        net = model()
        descend(net, [MuonWithAdamW(net.parameters(), 0.01)], 1)
        moves.append([a - b for a, b in zip(net.parameters(), model().parameters(), strict=True) if a.ndim == 2])
    for exact, rounded in zip(*moves, strict=True):
        assert 0 < (exact - rounded).norm() < 0.1 * exact.norm()


def test_plain_parameters_go_to_adamw_whatever_their_shape():
    ours, theirs = model(), model()
    first, last = list(ours[0].parameters()), [*ours[1].parameters(), *ours[2].parameters()]
    descend(ours, [MuonWithAdamW(last, 0.01, plain=first)], 1)
    descend(theirs, [AdamW(theirs.parameters(), 0.01, (0.9, 0.98), weight_decay=0.01)], 1)
    assert torch.equal(ours[0].weight, theirs[0].weight) and not torch.equal(ours[2].weight, theirs[2].weight)


def test_a_schedule_reaches_both_and_a_state_resumes_exactly():
    full = model()
    optimizer = MuonWithAdamW(full.parameters(), 0.01, muon_lr=0.03)
    schedule = LambdaLR(optimizer, lambda step: 0.5 if step else 1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.03, 0.01]
    descend(full, [optimizer], 2)
    schedule.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.015, 0.005]
    state, halfway = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(full)
    descend(full, [optimizer], 2, first=2)
    resumed = MuonWithAdamW(halfway.parameters(), 0.01, muon_lr=0.03)
    resumed.load_state_dict(state)
    descend(halfway, [resumed], 2, first=2)
    assert all(torch.equal(a, b) for a, b in zip(full.parameters(), halfway.parameters(), strict=True))


@pytest.mark.parametrize("keep", [lambda p: p.ndim == 2, lambda p: p.ndim == 1])
def test_one_kind_alone_will_do(keep):
    net = model()
    chosen = [p for p in net.parameters() if keep(p)]
    before = [p.clone() for p in chosen]
    descend(net, [MuonWithAdamW(chosen, 0.01)], 1)
    assert not any(torch.equal(a, b) for a, b in zip(before, chosen, strict=True))


def test_moments_in_8_bits_move_weights_as_adamw_does():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed; pip install 'imvideoedit[train]'")
    ours, theirs = nn.Linear(128, 64), nn.Linear(128, 64)  # smaller weights would keep moments in 32 bits
    theirs.load_state_dict(ours.state_dict())
    before = ours.weight.detach().clone()
    optimizers = adamw_8bit(ours.parameters(), lr=1e-2), AdamW(theirs.parameters(), lr=1e-2)
    inputs, targets = torch.randn(8, 128), torch.randn(8, 64)
    for _ in range(5):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (net(inputs) - targets).square().mean().backward()
            optimizer.step()
    assert optimizers[0].state[ours.weight]["state1"].dtype == torch.uint8
    assert (ours.weight - theirs.weight).abs().mean() < 0.05 * (theirs.weight - before).abs().mean()
