"""The commands that are killed: how each is called on little work, and what of its result must not show it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from imvideoedit.common.files import content_hash
from imvideoedit.evaluation.edits.manifest import EditRow, write_manifest
from imvideoedit.methods.adapter_file import adapter_hash
from imvideoedit.nano.mix import sample_pair
from imvideoedit.training.checkpoints import latest
from imvideoedit.video.reader import read_video, write_video
from tests.pair_folder import write_pairs
from tests.recipes import content
from tests.training_runs import HERE

NANO = [
    "+experiment=nano", "data.pairs=12", "data.validation_pairs=2", "data.batch_size=2", "trainer.max_steps=5",
    "data.resolution=32", "sampling.max_area=1024", "trainer.precision=32-true", "optimizer=adamw",
    "task.auxiliary=null",
    "trainer.accelerator=cpu", "trainer.val_check_interval=3", "trainer.log_every_n_steps=1", "callbacks.preview=null",
    "callbacks.progress=null", "callbacks.checkpoint.every_n_steps=2", "data.cache=out/encoded", "run_dir=out",
]  # fmt: skip
PAIRS = [option for option in HERE if not option.startswith(("data.cache", "trainer.max_steps", "data.batch_size"))]


@dataclass(frozen=True)
class Victim:
    """A command that writes below ``out`` in the folder that it runs in.

    Attributes:
        prepare: writes its inputs into a folder.
        result: what of ``out`` must be equal to that of a run that was never killed.
        keeps: patterns of files that are done, and must not be made again.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], Any]
    result: Callable[[Path], Any]
    keeps: tuple[str, ...] = ()
    shard: int = 0


def clip(path: Path, seed: int) -> Path:
    """A short video of the nano world."""
    source_FHWC = sample_pair(seed, 0)[0].render(5, (32, 32))[0]
    write_video(path, source_FHWC, fps=8, codec="lossless")
    return path


def _batch(folder: Path) -> None:
    rows = [{"input": clip(folder / f"{n}.mp4", n).name, "instruction": "snow", "seed": n} for n in range(4)]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _benchmark(folder: Path) -> None:
    rows = [EditRow(f"e{n}", clip(folder / f"{n}.mp4", n), "snow") for n in range(2)]
    write_manifest(rows, folder / "bench.jsonl")


def files(out: Path) -> dict[str, str]:
    """The hash of each file's bytes, by its name."""
    return {str(path.relative_to(out)): content_hash(path) for path in sorted(out.rglob("*")) if path.is_file()}


def _media(out: Path) -> Any:
    return {name: found for name, found in files(out).items() if name.endswith((".mp4", ".safetensors"))}


def _trained(out: Path) -> Any:
    losses = [line.split(",")[0] for line in (out / "csv/metrics.csv").read_text().splitlines()]
    newest = latest(out / "checkpoints")
    return adapter_hash(out / "adapter.safetensors"), losses, newest and newest[1]["step"]


def _recipe(out: Path) -> Any:
    stages = sorted(out.glob("*/part-*.parquet"))
    return content(out), {str(path.relative_to(out)): pq.read_table(path).to_pylist() for path in stages}


def _evaluated(out: Path) -> Any:
    kept = {str(path.relative_to(out / "scores")): path.read_text() for path in (out / "scores").rglob("*.json")}
    videos = {path.name: np.asarray(read_video(path)[0]).tobytes() for path in (out / "edits").glob("*.mp4")}
    return kept, videos, (out / "scores.csv").read_text(), (out / "result.json").read_text()


def _encoded(out: Path) -> Any:
    return files(out / "encoded"), adapter_hash(out / "adapter.safetensors")


EDIT = (
    "snow",
    "--quality",
    "draft",
    "--device",
    "cpu",
    "--side-by-side",
    "--codec",
    "lossless",
    "--output",
    "out/edited.mp4",
)
VICTIMS = (
    Victim(
        "edit", "imvideoedit.edit", ("0.mp4", *EDIT), lambda folder: (clip(folder / "0.mp4", 0), _out(folder)), _media
    ),
    Victim(
        "batch of edits",
        "imvideoedit.edit",
        ("jobs.jsonl", "--quality", "draft", "--device", "cpu", "--codec", "lossless", "--output", "out"),
        _batch,
        _media,
        ("*.mp4",),
    ),
    Victim("training on nano", "imvideoedit.train", tuple(NANO), lambda folder: None, _trained),
    Victim(
        "recipe",
        "data_recipes.build",
        ("+recipe=nano", "pairs=12", "plan.scenes_per_shard=3", "export.validation=0.2", "out=out"),
        lambda folder: None,
        _recipe,
        ("*/part-*.parquet",),
    ),
    Victim(
        "evaluation",
        "imvideoedit.evaluate",
        (
            *("+suite=benchmark", "benchmark=bench.jsonl", "suite.quality=draft", "device=cpu", "out=out", "flow=tvl1"),
            "suite.scorers.open.measures=[flicker,colour_drift]",
        ),
        _benchmark,
        _evaluated,
        ("edits/*.mp4", "scores/**/*.json"),
    ),
    Victim(
        "pre-encoding",
        "imvideoedit.train",
        (
            *PAIRS,
            *("data.path=pairs", "data.cache=out/encoded", "run_dir=out", "trainer.max_steps=1", "data.batch_size=1"),
        ),
        lambda folder: write_pairs(folder / "pairs", 16),
        _encoded,
        ("encoded/**/*.safetensors",),
        shard=4,
    ),
)


def _out(folder: Path) -> None:
    (folder / "out").mkdir(exist_ok=True)
