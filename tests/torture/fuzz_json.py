"""Mutants of every JSON file of our own, and of lists of jobs, edits and benchmarks."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from PIL import Image

from imvideoedit.data.shards import ShardStore
from imvideoedit.evaluation.study.ratings import Rating, Ratings
from imvideoedit.training.checkpoints import _complete
from tests.test_adapter_file import rewrite, saved
from tests.torture import json_readers as readers
from tests.torture.fuzzing import Target, fuzz
from tests.torture.mutants import Mutator, damaged_json_file, damaged_json_lines, damaged_letters
from tests.torture.table import Row
from tests.torture.tensor_mutants import damaged_metadata

JOB = {"input": "a.png", "instruction": "snow", "output": "out.mp4", "quality": "draft", "seed": 3, "start": 0.5}
JOBS = [JOB, {"input": "b.png", "instruction": "rain", "mask": "box:0,0,4,4", "steps": 3, "side_by_side": True}]
EDIT = {"id": "a", "source": "a.png", "edited": "b.png", "instruction": "snow", "prompt": "a", "method": "m"}
EDITS = [EDIT, EDIT | {"id": "b", "mask": "a.png", "input.style": "x", "reference": "b.png"}]
BENCHMARKS = {
    "editversebench": ("test.json", {"0": {"<video1>": "a.mp4", "<text>": "snow", "type": "add", "<image1>": "a.png"}}),
    "openve_bench": ("list.jsonl", [{"edited_type": "add", "prompt": "snow", "video": "a.mp4"}]),
    "ivebench": ("ivebench_prompt.json", [{"video_name": "a", "edit_prompt": "snow", "source_prompt": "a"}]),
    "vie_bench": ("list.json", [{"source": "a.mp4", "instruction": "snow", "mask": "a.png"}]),
    "reco_bench": ("add_data_configs.json", [{"source_video": "a.mp4", "instruction": "snow", "ref_image": ["a.png"]}]),
}
VBENCH = {"imaging_quality": [0.5, [{"video_path": "a/b.mp4", "video_results": 61.5}]]}


def run(scale: float, planted: bool) -> Iterator[Row]:
    """Planted: texts with half a character, NaN and deep nesting are no longer refused."""
    with tempfile.TemporaryDirectory() as work:
        made = targets(Path(work))
        if not planted:
            yield from fuzz("fuzz_json", made, scale)
            return
        with mock.patch("imvideoedit.common.json_file._check", lambda value, depth: None):
            yield from fuzz("fuzz_json", [each for each in made if each.name == "any JSON"], max(scale, 0.1))


def targets(work: Path) -> list[Target]:
    return [*_of_models(work), *_of_lists(work), *_of_runs(work), *_of_evaluations(work), *_of_metadata(work)]


def _of_models(work: Path) -> Iterator[Target]:
    saved(work / "adapter.safetensors")
    goods = [(work / "adapter.safetensors").read_bytes()]
    rewrite(work / "adapter.safetensors")  # without checksums, which stop damaged ones early
    goods.append((work / "adapter.safetensors").read_bytes())
    yield Target("adapter headers", 1200, "adapter.safetensors", goods, damaged_metadata, readers.header)
    store = ShardStore(work / "store")
    store.write(readers.STORED)
    (path,) = (work / "store").iterdir()
    yield Target("shard indexes", 600, path.name, [path.read_bytes()], damaged_metadata, readers.shard)


def _of_lists(work: Path) -> Iterator[Target]:
    folder = work / "lists"
    folder.mkdir()
    for name in ("a.png", "b.png", "a.mp4"):
        Image.new("RGB", (8, 8)).save(folder / name, "PNG")
    lists: dict[str, tuple[Sequence[dict], Callable[[Path], None]]] = {
        "jobs": (JOBS, readers.jobs),
        "manifest": (EDITS, readers.manifest),
    }
    for name, (rows, check) in lists.items():
        good = "\n".join(map(json.dumps, rows)).encode()
        yield Target(f"{name} as JSON", 1000, f"{name}.jsonl", [good], damaged_json_lines, check, folder)
    for name, (file, held) in BENCHMARKS.items():
        lines = file.endswith("l")
        good = ("\n".join(map(json.dumps, held)) if lines else json.dumps(held)).encode()
        mutate: Mutator = damaged_json_lines if lines else damaged_json_file
        yield Target(f"{name}", 300, file, [good], mutate, readers.benchmark(name), folder)


def _of_runs(work: Path) -> Iterator[Target]:
    folder = work / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/part").write_bytes(b"state")
    facts = {"step": 1, "strategy": "SimpleNamespace", "processes": 1}
    _complete(folder / "checkpoints/part", folder / "checkpoints/step-00000001.ckpt", facts)
    seal = (folder / "checkpoints/step-00000001.json").read_bytes()
    good = [seal]
    yield Target(
        "checkpoint seals", 600, "step-00000001.json", good, damaged_json_file, readers.seal, folder / "checkpoints"
    )
    settings = {key: value for key, value in readers.RUN.items() if key != "resume"}
    starts = [{"step": 0, "changed": {}}, {"step": 1, "changed": {"task.lr": [0.2, 0.1]}}]
    files = {"begun.json": json.dumps(settings), "finished.json": json.dumps(settings)}
    files["starts.jsonl"] = "\n".join(map(json.dumps, starts))
    for name, text in files.items():
        (folder / name).write_text(text)
    for name, text in files.items():
        mutate: Mutator = damaged_json_lines if name.endswith("l") else damaged_json_file
        yield Target(f"runs' {name}", 500, name, [text.encode()], mutate, readers.run_folder, folder)
    owner = json.dumps({"process": 3, "host": "here", "what": "a training run"}).encode()
    yield Target("owners", 200, ".owner", [owner], damaged_json_file, readers.owner)


def _of_evaluations(work: Path) -> Iterator[Target]:
    folder = work / "scores"
    folder.mkdir()
    (folder / "video.bin").write_bytes(b"video")
    readers.scored(folder)
    (score,) = (folder / "kept").iterdir()
    name = f"kept/{score.name}"
    yield Target("kept scores", 600, name, [score.read_bytes()], damaged_json_file, readers.score, folder)
    Ratings(work / "ratings").write(Rating("r", "i", ("m",), 3.0, 2.5))
    rating = (work / "ratings/r/i.json").read_bytes()
    yield Target("kept ratings", 600, "r/i.json", [rating], damaged_json_file, readers.rating, work / "ratings")
    vbench = json.dumps(VBENCH).encode()
    yield Target("VBench's results", 400, "x.json", [vbench], damaged_json_file, readers.original_scores)
    yield Target("money spent", 300, "spent.json", [b'{"spent": 0.5}'], damaged_json_file, readers.budget)
    answer = b'Well: {"mark": 7.5, "reason": "the {box} is blue"} I think'
    yield Target("models' answers", 600, "answer.txt", [answer], damaged_letters, readers.answer)


def _of_metadata(work: Path) -> Iterator[Target]:
    facts = {"imvideoedit": json.dumps({"instruction": "snow", "input_hash": "x", "settings": {"steps": 3}})}
    folder = work / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "input.png")
    header = json.dumps({"a": [1, 2.5, None, True, "é", {"b": {}}], "c": -3e5}).encode()
    yield Target("any JSON", 2000, "x.json", [header], damaged_json_file, readers.any_json)

    def with_text(data: bytes, rng) -> bytes:
        return _tiff(damaged_json_file(json.dumps(facts).encode(), rng))

    good = _tiff(json.dumps(facts).encode())
    yield Target("edits' metadata", 500, "edit.tiff", [good], with_text, readers.picture, folder)


def _tiff(description: bytes) -> bytes:
    """A picture with a text of any bytes."""
    with tempfile.NamedTemporaryFile(suffix=".tiff") as file:
        exif = Image.Exif()
        exif[0x010E] = "D" * max(len(description), 8)
        Image.new("RGB", (4, 4)).save(file.name, exif=exif)
        return Path(file.name).read_bytes().replace(b"D" * max(len(description), 8), description.ljust(8))
