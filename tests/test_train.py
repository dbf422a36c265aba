"""The training command, run as a user runs it: every experiment composes, a killed run resumes exactly."""

import csv
import json
import math
import shutil
import signal
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf

from imvideoedit.methods.adapter_file import adapter_hash, read_header
from imvideoedit.video.reader import Clip
from tests.processes import run
from tests.training_runs import signal_at

CHECKOUT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.stem for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml"))
TINY = (
    "+experiment=nano",
    "data.pairs=12",
    "data.validation_pairs=2",
    "data.batch_size=2",
    "data.resolution=32",
    "trainer.max_steps=8",
    "trainer.val_check_interval=4",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
    "callbacks.checkpoint.every_n_steps=3",
    "callbacks.preview.every_n_steps=8",
    "callbacks.preview.frames=5",
    "callbacks.preview.tasks=[color_texture]",
    "sampling.steps=1",
    "sampling.max_area=1024",
)


def train(folder: Path, *overrides: str, forked: bool = True) -> tuple[int, str]:
    """Exit code and stderr."""
    done = run("imvideoedit.train", *overrides, cwd=folder, forked=forked)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def finished(wan_folder, tmp_path_factory) -> Path:
    """A finished run of eight steps."""
    folder = tmp_path_factory.mktemp("finished")
    code, stderr = train(folder, *TINY, f"backbone.name={wan_folder}", forked=False)
    assert code == 0, stderr
    return folder / "runs" / "nano"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment):
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = compose("train", [f"+experiment={experiment}"], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    own = {key: value for key, value in config.items() if key != "hydra"}
    resolved = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in own.items()}
    assert resolved["name"] == experiment and resolved["run_dir"].startswith(f"runs/{experiment}")
    targets = list(_targets(resolved))
    assert len(targets) > 10
    for target in targets:
        assert callable(get_method(target) if target.split(".")[-1].islower() else get_class(target))


@pytest.mark.parametrize("trainer", ["single", "ddp", "zero2", "zero2_offload", "fsdp2"])
def test_every_trainer_composes_for_the_real_experiment_on_any_number_of_machines(trainer):
    changes = ["+experiment=13k", f"trainer={trainer}"]
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        nodes = [] if trainer == "single" else ["trainer.num_nodes=2", "trainer.devices=4"]
        config = compose("train", [*changes, *nodes])
    assert config.global_batch == 16 and config.data.epochs == 5 and config.trainer.precision == "bf16-mixed"
    assert config.task.gradient_checkpointing and config.sampling.max_area == 480 * 832
    assert config.backbone.name == "wan_1_3b" and list(config.backbone.parts) == []
    assert trainer == "single" or (config.trainer.num_nodes, config.trainer.devices) == (2, 4)
    if trainer.startswith("zero2"):
        assert config.trainer.strategy.offload == (trainer == "zero2_offload") and config.trainer.plugins is None
        pytest.importorskip("deepspeed")
    if trainer != "single":
        instantiate(config.trainer.strategy)


def _targets(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _targets(child)


@pytest.mark.slow
def test_a_run_writes_logs_previews_and_the_adapter(finished, wan_folder):
    with (finished / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 8 and all(map(math.isfinite, losses))
    speeds = [float(row["speed/pairs_per_second"]) for row in rows if row["speed/pairs_per_second"]]
    assert len(speeds) == 8 and all(0 < float(row["speed/mfu"]) < 1 for row in rows if row["speed/mfu"])
    gates = [float(row["gate/01/near_1"]) for row in rows if row["gate/01/near_1"]]
    assert len(gates) == 8 and all(0 <= gate <= 1 for gate in gates)
    columns = {column for column in rows[0] if column.startswith("loss_by_sigma/")}
    assert columns <= {f"loss_by_sigma/{i / 5:.1f}-{(i + 1) / 5:.1f}" for i in range(5)} and columns
    assert {"train/lr", "train/grad_norm", "validation/loss", "validation/loss_at_0.5"} <= set(rows[0])
    assert list((finished / "tensorboard").glob("events.*"))
    preview = Clip(finished / "previews" / "step-000008.mp4").info
    assert (preview.frames, preview.width, preview.height) == (5, 3 * 2 * 64, 2 * 64)
    assert (finished / "previews" / "step-000008.png").is_file()
    header = read_header(finished / "adapter.safetensors")
    assert header.backbone["name"] == str(wan_folder)
    assert header.training["steps"] == 8 and header.training["sampler"]["max_area"] == 1024


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(finished, wan_folder, tmp_path):
    overrides = (*TINY, f"backbone.name={wan_folder}")
    code, _ = train(tmp_path, *overrides, signal_at(4))
    checkpoint = tmp_path / "runs" / "nano" / "checkpoints" / "step-00000003.json"
    adapter = tmp_path / "runs" / "nano" / "adapter.safetensors"
    assert code == -signal.SIGKILL and checkpoint.exists() and not adapter.exists()
    code, stderr = train(tmp_path, *overrides)
    assert code == 0, stderr
    assert adapter_hash(adapter) == adapter_hash(finished / "adapter.safetensors")


@pytest.mark.slow
def test_a_run_is_not_overwritten(finished, wan_folder):
    before = (finished / "adapter.safetensors").read_bytes()
    code, stderr = train(finished.parents[1], *TINY, f"backbone.name={wan_folder}", "resume=false")
    assert code == 2 and "resume=false" in stderr.splitlines()[-1] and "Traceback" not in stderr
    assert (finished / "adapter.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_other_settings_continue_it(finished, wan_folder, tmp_path):
    folder = shutil.copytree(finished.parents[1], tmp_path / "copy")
    adapter = folder / "runs" / "nano" / "adapter.safetensors"
    before = adapter.read_bytes(), adapter.stat().st_mtime_ns
    code, stderr = train(folder, *TINY, f"backbone.name={wan_folder}", "resume=true")
    assert code == 0, stderr
    assert (adapter.read_bytes(), adapter.stat().st_mtime_ns) == before
    code, stderr = train(folder, *TINY, f"backbone.name={wan_folder}", "resume=true", "trainer.max_steps=10")
    assert code == 0, stderr
    assert read_header(adapter).training["steps"] == 10
    code, stderr = train(folder, *TINY, f"backbone.name={wan_folder}", "resume=true", "method=no_gate")
    assert code == 2 and "cannot take: method._target_" in stderr.splitlines()[-1] and "Traceback" not in stderr
    assert read_header(adapter).training["steps"] == 10


@pytest.mark.slow
def test_an_interrupted_sweep_does_the_rest_and_redoes_nothing(tmp_path):
    sweep = (
        "-m",
        "+experiment=ablation",
        "seed=0",
        "method=no_update,parallel_2d",
        "data.pairs=4",
        "data.validation_pairs=1",
        "data.batch_size=2",
        "trainer.max_steps=2",
        "trainer.accelerator=cpu",
        "afterwards.score.per_task=1",
        "afterwards.score.frames=[1]",
        signal_at(1, after="finished.json"),
        "hydra.job.config.override_dirname.exclude_keys=[experiment,callbacks.signal]",
    )
    runs = tmp_path / "runs" / "ablation"
    code, stderr = train(tmp_path, *sweep)
    assert code == -signal.SIGKILL, stderr
    (first,) = (path.parent for path in runs.glob("*/finished.json"))
    assert "method-no_update" in first.name and (first / "scores" / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*.safetensors")}
    code, stderr = train(tmp_path, *sweep)
    assert code == 0, stderr
    assert before and {path: path.stat().st_mtime_ns for path in first.rglob("*.safetensors")} == before
    (second,) = runs.glob("*method-parallel_2d*")
    assert json.loads((second / "scores" / "result.json").read_text())["videos"] == 10
    shards = list((tmp_path / "runs" / "encoded" / "pairs").iterdir())
    assert len(shards) == 2  # train and validation pairs, encoded once


def test_launchers_compose_for_a_sweep():
    for launcher in ("basic", "joblib", "slurm", "ray_cluster"):
        with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
            overrides = ["+experiment=ablation", f"hydra/launcher={launcher}"]
            config = compose("train", overrides, return_hydra_config=True)
        target = config.hydra.launcher._target_
        assert target.startswith("hydra") and target.endswith("Launcher")
        if launcher != "ray_cluster":  # Ray itself is left to those who have a cluster
            assert callable(get_class(target))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("+experiment=none",), "experiment/none"),
        (("task.warm=3",), "task.warm"),
        (("backbone.name=./nowhere",), "./nowhere"),
        (("+experiment=13k", "trainer=single", "backbone.name=${oc.env:WAN}", "data.path=no/pairs"), "no/pairs"),
        (("backbone.name=${oc.env:WAN}", "task.schedule=wild"), "task.schedule"),
        (("backbone.name=${oc.env:WAN}", "+experiment=nano", "trainer.precision=bf16-true"), "bf16-mixed"),
        (("backbone.name=${oc.env:WAN}", "method.gate=true", "method.position=above"), "method.position"),
    ],
)
def test_mistakes_cost_one_line(overrides, words, wan_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WAN", str(wan_folder))
    code, stderr = train(tmp_path, *overrides)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1 and words in errors[0] and "Traceback" not in stderr, stderr


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["13k", "paper"])
def test_wan_experiments_start_and_name_the_missing_weights(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("IMVIDEOEDIT_WAN", str(tmp_path / "wan"))
    code, stderr = train(tmp_path, f"+experiment={experiment}")
    last = stderr.strip().splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and "wan_1_3b" in last and "IMVIDEOEDIT_WAN" in last, stderr
