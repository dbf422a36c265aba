"""One bit turned, or the end cut off, in what was written earlier: noticed, made again, or without any effect."""

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pydantic import BaseModel

from imvideoedit.clients.answers import AnswerCache
from imvideoedit.clients.budget import Budget
from imvideoedit.common.errors import UserError
from imvideoedit.data.shards import ShardStore, fill
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.study.plan import Item
from imvideoedit.evaluation.study.ratings import Rating, Ratings
from imvideoedit.methods.adapter_file import load_adapter, read_state
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.training.checkpoints import _complete, latest
from imvideoedit.wan.identity import Origin, _sample, parameter_hash
from tests.conftest import tiny_transformer
from tests.test_adapter_file import saved
from tests.torture import json_readers as readers
from tests.torture.fuzzing import Target, fuzz
from tests.torture.mutants import flipped
from tests.torture.table import Row

ENTRIES = {key: {"x": torch.randn(4, 3).half(), "y": torch.randn(2)} for key in ("a", "b", "c")}
RATING = Rating("r", "i", ("m",), 3.0, 2.5)


class _Any(str):
    """A checksum that differs from none."""

    def __ne__(self, other: object) -> bool:
        return False


class _Answer(BaseModel):
    mark: float
    reason: str


def run(scale: float, planted: bool) -> Iterator[Row]:
    """Planted: any checksum of an encoded entry is taken for the right one."""
    with tempfile.TemporaryDirectory() as work:
        made = list(targets(Path(work)))
        if not planted:
            yield from fuzz("bit_flips", made, scale)
            return
        with mock.patch("imvideoedit.data.shards.checksum", lambda entry: _Any()):
            yield from fuzz("bit_flips", made[:1], max(scale, 0.1))


def targets(work: Path) -> Iterator[Target]:
    store = ShardStore(work / "store")
    fill(store, list(ENTRIES), lambda keys: {key: ENTRIES[key] for key in keys}, "rows")
    (shard,) = (work / "store").iterdir()
    yield _target("encoded caches", 600, shard.name, shard, cache)
    yield from _checkpoints(work / "checkpoints")
    path = work / "adapter.safetensors"
    saved(path)
    yield _target("adapter files", 600, path.name, path, _Adapter(path))
    yield from _answers(work)
    model = _Backbone()
    model(work / "backbones.json")
    yield _target("hashes of backbones", 400, "backbones.json", work / "backbones.json", model)


def _target(
    name: str, count: int, file: str, good: Path, check: Callable[[Path], None], folder: Path | None = None
) -> Target:
    return Target(name, count, file, [good.read_bytes()], flipped, check, folder, guided=False, grows=False)


def _checkpoints(folder: Path) -> Iterator[Target]:
    """The newer one of two, and its seal."""
    folder.mkdir()
    for step in (1, 2):
        state = io.BytesIO()
        torch.save({"step": step, "weights": torch.randn(40)}, state)
        (folder / "part").write_bytes(state.getvalue())
        facts = {"step": step, "strategy": "SingleDeviceStrategy", "processes": 1}
        _complete(folder / "part", folder / f"step-{step:08d}.ckpt", facts)
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    known = {step: latest_facts(folder, step) for step in (1, 2)}

    def check(path: Path) -> None:
        found = latest(path.parent)
        assert found is not None, "the older checkpoint is lost, too"
        place, facts = found
        step = int(place.stem.split("-")[1])
        assert place.read_bytes() == good[place.name] and facts == known[step], f"step {step} with {facts}"

    for ending in ("ckpt", "json"):
        name = f"step-00000002.{ending}"
        yield _target(f"checkpoints' .{ending}", 400, name, folder / name, check, folder)


def latest_facts(folder: Path, step: int) -> dict[str, Any]:
    """The facts of a checkpoint's seal."""
    with tempfile.TemporaryDirectory() as alone:
        for ending in ("ckpt", "json"):
            name = f"step-{step:08d}.{ending}"
            (Path(alone) / name).write_bytes((folder / name).read_bytes())
        found = latest(alone)
        assert found is not None
        return found[1]


def cache(path: Path) -> None:
    """Repair what can be, encode the rest again: then every entry is the one that was encoded."""
    try:
        store = ShardStore(path.parent)
        for key in ENTRIES:
            if not store.missing([key]):
                _same(store.read(key), ENTRIES[key])
    except UserError:  # in use, which says how to repair it
        pass
    store = ShardStore(path.parent)
    store.repair()
    fill(store, list(ENTRIES), lambda keys: {key: ENTRIES[key] for key in keys}, "rows")
    for key, entry in ENTRIES.items():
        _same(ShardStore(path.parent).read(key), entry)
    for each in path.parent.iterdir():
        each.unlink()


def _same(found: Any, wanted: Any) -> None:
    assert found.keys() == wanted.keys() and all(found[name].equal(wanted[name]) for name in wanted), "another entry"


class _Adapter:
    """Loads an adapter, and compares all of it with the one that was written."""

    def __init__(self, path: Path) -> None:
        self.header, self.state = asdict(read_header(path)), read_state(path)
        self.transformer = tiny_transformer()
        self.hash = parameter_hash(self.transformer)

    def __call__(self, path: Path) -> None:
        method = load_adapter(path, self.transformer, backbone_hash=self.hash)
        try:
            _same(method.state_dict(), self.state)
            found = asdict(read_header(path))
            found["training"] = {key: found["training"].get(key) for key in self.header["training"]}
            assert found == self.header, f"another header: {found}"
        finally:
            method.uninstall()


class _Backbone:
    """The hash of a backbone, from the user's cache where it holds one."""

    def __init__(self) -> None:
        self.transformer = tiny_transformer()
        self.hash = parameter_hash(self.transformer)
        parameters = dict(self.transformer.named_parameters())
        versions = {name: tensor._version for name, tensor in parameters.items()}
        self.origin = Origin("/wan", [["x", 1, 2]], "torch.float32", parameters, versions, _sample(parameters))

    def __call__(self, path: Path) -> None:
        with mock.patch.dict(os.environ, IMVIDEOEDIT_CACHE=str(path.parent)):
            found = self.origin.parameter_hash(self.transformer)
        assert found == self.hash, f"the hash {found} of a backbone with {self.hash}"


def _answers(work: Path) -> Iterator[Target]:
    """Kept scores, ratings and answers of models, and what they cost."""
    folder = work / "scores"
    folder.mkdir()
    (folder / "video.bin").write_bytes(b"video")
    readers.scored(folder)
    (score,) = (folder / "kept").iterdir()
    yield _target("kept scores", 600, f"kept/{score.name}", score, scored, folder)
    Ratings(work / "ratings").write(RATING)
    yield _target("kept ratings", 400, "r/i.json", work / "ratings/r/i.json", rating)
    AnswerCache(work).write("key", json.dumps({"mark": 7.5, "reason": "the box is blue"}))
    yield _target("models' answers", 600, "answers.sqlite", work / "answers.sqlite", answer)
    Budget(9.0, work / "spent.json").reserve(0.5)
    yield _target("money spent", 200, "spent.json", work / "spent.json", spent)


def scored(path: Path) -> None:
    """The score as it was given, kept or given again."""
    (found,) = readers.scored(path.parent.parent)
    assert found == {"quality": 3.5, "reason": "good"}, f"a score that nobody gave: {found}"


def rating(path: Path) -> None:
    """Read a rating."""
    items = [Item("i", (EditRow("a", path, "snow", method="m"),))]
    (found,) = Ratings(path.parent.parent).read(items)
    assert found == RATING, f"a rating that nobody gave: {found}"


def answer(path: Path) -> None:
    """Read an answer."""
    found = AnswerCache(path.parent).read("key", _Answer)
    assert found is None or json.loads(found) == {"mark": 7.5, "reason": "the box is blue"}, f"nobody answered {found}"
    for each in path.parent.glob("answers.*"):
        each.unlink()


def spent(path: Path) -> None:
    """Read what was spent."""
    assert Budget(9.0, path).spent == 0.5, "another sum"
