"""How many pairs a process computes at a time: what fits, and that a step does not depend on it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir

from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import CONF
from imvideoedit.data.buckets import BucketBatchSampler
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.training.dry_run import Plan
from imvideoedit.training.estimate import GIB, estimate
from imvideoedit.training.micro_batch import SHARE, choose_batch_size
from tests.conftest import awaken, tiny_batch, tiny_transformer


def composed(*overrides: str):
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", ["+experiment=13k", *overrides])


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are so many GPUs of so many GiB."""

    def fake(count: int, size: float) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=size * GIB))

    return fake


def test_without_a_gpu_pairs_come_one_by_one_and_a_number_stays():
    config = composed()
    choose_batch_size(config)
    assert config.data.batch_size == 1
    config = composed("data.batch_size=4")
    choose_batch_size(config)
    assert config.data.batch_size == 4
    with pytest.raises(UserError, match="global_batch"):
        choose_batch_size(composed("global_batch=null"))


@pytest.mark.slow
def test_the_largest_part_of_a_step_is_taken_that_fits(gpus, capsys):
    chosen = {}
    for count, size in ((1, 8), (1, 48), (1, 140), (4, 140)):
        gpus(count, size)
        config = composed()
        choose_batch_size(config)
        chosen[count, size] = config.data.batch_size
        plan = Plan(config)

        def needed(pairs, plan=plan):
            setting = replace(plan.setting(), pairs=replace(plan.pairs, count=pairs))
            return sum(estimate(plan.sizes, plan.method, setting).values())

        share = 16 // count
        assert share % chosen[count, size] == 0
        assert chosen[count, size] == 1 or needed(chosen[count, size]) <= SHARE * size * GIB
        assert chosen[count, size] == share or needed(2 * chosen[count, size]) > SHARE * size * GIB
        assert f"data.batch_size={chosen[count, size]}:" in capsys.readouterr().out
    assert chosen[1, 8] == 1 < chosen[1, 48] < chosen[1, 140] and chosen[4, 140] == 4


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_step_has_the_same_pairs_however_it_is_cut(size):
    buckets = [(index % 3,) for index in range(50)]

    def steps(size):
        batches = list(BucketBatchSampler(buckets, size, seed=3, group=8 // size))
        parts = [batches[i : i + 8 // size] for i in range(0, len(batches), 8 // size)]
        return [{row for batch in part for row in batch} for part in parts]

    # As sets: a bucket's last step is filled up by repeated rows where it has several batches.
    assert len(steps(size)) == 8
    assert all(a <= b for a, b in zip(steps(8), steps(size), strict=True))
    assert steps(size) == steps(4) or size == 8


def test_gradients_of_parts_add_up_to_those_of_the_whole():
    transformer, method, batch = tiny_transformer(), AlignedUpdate(), tiny_batch()
    method.install(transformer)
    awaken(method)
    point, sigma_B, weights = method.training_point(batch, torch.Generator().manual_seed(0))

    def gradients(parts):
        method.zero_grad()
        for rows in parts:
            own = replace(
                batch,
                source_BCFHW=batch.source_BCFHW[rows],
                target_BCFHW=batch.target_BCFHW[rows],
                text_BTD=batch.text_BTD[rows],
            )
            at = type(point)(*(getattr(point, name)[rows] for name in ("x_BCFHW", "velocity_BCFHW")))
            losses = method.losses_at(transformer, own, at, sigma_B[rows], None if weights is None else weights[rows])
            (torch.stack(list(losses.values())).sum(0).mean() / len(parts)).backward()
        return [p.grad.clone() for p in method.parameters() if p.grad is not None]

    count = len(sigma_B)
    whole, parts = gradients([slice(0, count)]), gradients([slice(i, i + 1) for i in range(count)])
    assert count > 1 and len(whole) > 10
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
