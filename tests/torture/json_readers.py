"""Readers of our JSON files and lists: what is accepted must be as it should be, whatever the file holds."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf
from pydantic import BaseModel, Field

from imvideoedit.clients.answers import Unanswered, fitting_json
from imvideoedit.clients.budget import Budget
from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json, read_json
from imvideoedit.common.owner import _holder
from imvideoedit.data.records import open_records
from imvideoedit.data.shards import DamagedEntry, ShardStore
from imvideoedit.editing.edit_file import read_facts, why_made_again
from imvideoedit.editing.job import Job
from imvideoedit.editing.jobs import read_jobs
from imvideoedit.evaluation.edits.manifest import EditRow, read_manifest, write_manifest
from imvideoedit.evaluation.edits.score_store import ScoreStore
from imvideoedit.evaluation.study.plan import Item
from imvideoedit.evaluation.study.ratings import Ratings
from imvideoedit.evaluation.suites.folders import read_benchmark
from imvideoedit.evaluation.vbench.cross_check import read_original
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.training.checkpoints import check_processes, latest
from imvideoedit.training.run_folder import RunFolder
from imvideoedit.video.reader import read_metadata

RUN = {"run_dir": ".", "resume": True, "seed": 1, "task": {"lr": 0.1, "start": None}}
STORED = {key: {"x": torch.arange(4.0) + place} for place, key in enumerate("ab")}


def sound(value: Any) -> None:
    """See that a value has finite numbers and texts that a file can hold."""
    json.dumps(value, allow_nan=False, ensure_ascii=False, default=str).encode()


def header(path: Path) -> None:
    sound(asdict(read_header(path)))


def seal(path: Path) -> None:
    found = latest(path.parent)
    if found is not None:
        sound(found[1])
        assert found[0].read_bytes() == b"state", "a checkpoint that is not the one that was written"
        check_processes(SimpleNamespace(strategy=SimpleNamespace(), world_size=1), *found)  # type: ignore[arg-type]


def shard(path: Path) -> None:
    store = ShardStore(path.parent)
    for repaired in (False, True):
        for key in "ab":
            if not store.missing([key]):
                try:
                    assert store.read(key)["x"].equal(STORED[key]["x"]), "an entry that is not the one written"
                except DamagedEntry:
                    assert not repaired, "repaired, and still damaged"
        store.repair()


class _Kept:
    name, kind, workers, scales, lower = "kept", "", 1, {}, frozenset()  # type: ignore[var-annotated]

    def identity(self) -> str:
        return "x"

    def facts(self) -> list[str]:
        return []

    warnings = facts

    def score(self, row: EditRow) -> dict[str, Any]:
        return {"quality": 3.5, "reason": "good"}


def scored(folder: Path) -> list[dict[str, Any]]:
    """The scores of one edit, kept in a folder or made."""
    video = folder / "video.bin"
    return ScoreStore(folder).collect([EditRow("a", video, "snow", video)], _Kept())


def score(path: Path) -> None:
    (found,) = scored(path.parent.parent)
    sound(found)
    assert all(isinstance(value, str | int | float | None) for value in found.values())


def rating(path: Path) -> None:
    items = [Item("i", (EditRow("a", path, "snow", method="m"),))]
    for each in Ratings(path.parent.parent).read(items):
        sound(asdict(each))
        assert 0 <= each.value <= 5 and each.seconds >= 0 and each.item == "i", f"a rating of {each}"


def manifest(path: Path) -> None:
    rows = read_manifest(path)
    copy = path.parent / "copy.jsonl"
    write_manifest(rows, copy)
    assert [asdict(row) for row in read_manifest(copy)] == [asdict(row) for row in rows], "another after a round trip"


def jobs(path: Path) -> None:
    like = Job(Path("x.mp4"), "snow", Path("y.mp4"))
    for entry in read_jobs(path, None, None, like):
        if entry.job is None:
            assert entry.problem.isprintable() and entry.problem, "a problem of several lines"
            continue
        sound(entry.job.settings)
        assert all(map(math.isfinite, [value for value in (entry.job.start, entry.job.fps) if value is not None]))
        try:
            sound(entry.job.facts())
            entry.job.check()
        except UserError:
            pass


def benchmark(name: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        for row in read_benchmark(name, path.parent):
            sound(asdict(row))
            assert row.source.is_file()

    return check


def pairs(form: str) -> Callable[[Path], None]:
    """Every row of a data set, whose good ones are pairs of pictures of one size with a text."""

    def check(path: Path) -> None:
        folder = path.parent if path.parent.name == "data" else path.parent.parent
        records = open_records(folder, form)
        problem: UserError | None = None
        for row in range(len(records)):
            try:
                record = records[row]
                source, target = record.load()
                assert source.shape == target.shape and source.dtype == target.dtype == "uint8" and record.prompt
                sound([record.id, dict(record.texts), record.scores])
                for name in record.media:
                    record.read(name)
            except UserError as error:
                problem = error
        if problem is not None:
            raise problem

    return check


def run_folder(path: Path) -> None:
    run = RunFolder(OmegaConf.create(RUN))
    run.start()
    sound(run.settings)


def budget(path: Path) -> None:
    kept = Budget(1.0, path)
    kept.reserve(0.25)
    assert 0.25 <= kept.spent <= 1.0


def owner(path: Path) -> None:
    assert _holder(path).isprintable()


def original_scores(path: Path) -> None:
    sound(read_original(read_json(path)))


def picture(path: Path) -> None:
    sound(read_metadata(path))
    read_facts(path)
    like = Job(path.parent / "input.png", "snow", path)
    why_made_again(like, "model")


def any_json(path: Path) -> None:
    value = parse_json(path.read_bytes(), path.name, object)
    sound(value)


class _Marks(BaseModel):
    mark: float = Field(ge=0, le=10)
    reason: str


def answer(path: Path) -> None:
    try:
        found = fitting_json(path.read_text(encoding="utf-8", errors="replace"), _Marks)
    except Unanswered as error:
        raise UserError(str(error)) from error
    sound(_Marks.model_validate_json(found).model_dump())
