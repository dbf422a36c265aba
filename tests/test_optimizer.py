"""Muon and AdamW as one optimizer: who moves what, learning rates, and resuming from a state."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from imvideoedit.training.optimizers import MuonWithAdamW


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
