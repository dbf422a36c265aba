"""The benchmark measures what it says: FLOPs, stored bytes, and the savings of a cached source."""

import json

import pytest
import torch

from imvideoedit.benchmark import experiment
from imvideoedit.benchmark.__main__ import SMALL, main
from imvideoedit.benchmark.block import Block, edit_step
from imvideoedit.benchmark.costs import cost
from imvideoedit.benchmark.edit import passes
from imvideoedit.common.machine import matmul_rate
from imvideoedit.editing.sampling_config import QUALITIES, SamplingConfig
from imvideoedit.methods.predict_update import PredictUpdate


def test_flops_and_stored_bytes_are_those_of_the_computation():
    left, right = torch.randn(8, 16, requires_grad=True), torch.randn(16, 32, requires_grad=True)
    found = cost(lambda: left @ right, repeats=1)
    assert found.flops == 2 * 8 * 16 * 32 and found.stored == 4 * (8 * 16 + 16 * 32) and found.seconds > 0
    query = torch.randn(1, 2, 6, 4)
    attention = cost(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query), repeats=1)
    assert attention.flops == 2 * 2 * 2 * 6 * 6 * 4
    assert matmul_rate(torch.device("cpu"), torch.float32) > 0


def test_a_cached_source_is_run_once_for_sampling_and_without_a_gradient_for_training():
    block = Block((1, 4, 4), SMALL)
    costs = {}
    for stream in ("cached", "joint"):
        method = PredictUpdate(source_stream=stream)
        method.install(block.transformer)
        with torch.no_grad():
            costs[stream, "sampling"] = cost(edit_step(block, method, False), 1).flops
        costs[stream, "training"] = cost(edit_step(block, method, True), 1).flops
        assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
        method.uninstall()
    assert costs["cached", "sampling"] < 0.7 * costs["joint", "sampling"]
    # At this size the text, of which joint streams compute keys and values once, is most of the cost.
    assert costs["cached", "training"] < 0.9 * costs["joint", "training"]
    assert all(p.grad is None for p in block.transformer.parameters())


def test_presets_take_fewer_passes_and_the_best_is_the_adapters_own():
    own = SamplingConfig()
    taken = {quality: passes(own.preset(quality)) for quality in QUALITIES}
    assert taken == {"draft": 10, "standard": 37, "best": 100} and own.preset("best") == own


@pytest.mark.parametrize("kind", ["train", "edit"])
def test_the_command_prints_and_writes_its_ratios(kind, tmp_path, capsys):
    main([kind, "--size", "nano", "--device", "cpu", "--repeats", "1", "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    wanted = {
        "train": {"cached_vs_naive", "joint_vs_naive", "cached_vs_floor"},
        "edit": {"best_vs_t2v", "standard_vs_t2v", "draft_vs_t2v"},
    }[kind]
    assert wanted <= figures.keys() and all(figures[name] > 0 for name in wanted)
    assert all(name in capsys.readouterr().out for name in [max(wanted)])


@pytest.mark.slow
def test_the_experiment_runs_its_own_trainer_and_goes_on_past_what_does_not_work(tmp_path, monkeypatch, capsys):
    small = ("global_batch=4", "sampling.max_area=1024")
    cases = {
        "full, batch 3": ("trainer=single", "global_batch=4", "data.batch_size=3"),
        "full, batch 4": (*experiment.FAST, *small, "data.batch_size=4"),
        "lora, batch 4": (*experiment.FAST, *small, "data.batch_size=4", "method.adapter=lora"),
    }
    monkeypatch.setattr(experiment, "CASES", cases)
    main(["experiment", "--size", "nano", "--device", "cpu", "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "global_batch" in figures["full, batch 3"]["left_out"] and figures["encoded_pairs_per_second"] > 0
    for name in ("full, batch 4", "lora, batch 4"):
        assert figures[name]["seconds_a_pair"] > 0 and figures[name]["mfu"] > 0 and figures[name]["peak_gib"] > 0.1
    assert figures["mfu"] == figures["full, batch 4"]["mfu"]
    assert "13,000 pairs, 5 epochs" in capsys.readouterr().out
