"""Mutants of texts: tables of jobs and pairs, parquet, instructions and prompts, boxes, command lines."""

import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from unittest import mock

from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.editing.job_rows import check_text
from imvideoedit.nano.text import build_tokenizer
from imvideoedit.video.masks import box_mask
from imvideoedit.world.grammar import apply_instruction
from tests.data_forms import FORMS
from tests.torture import json_readers as readers
from tests.torture.fuzzing import Target, fuzz
from tests.torture.mutants import (
    TEXTS,
    Mutator,
    damaged_bytes,
    damaged_json_file,
    damaged_json_lines,
    damaged_letters,
    damaged_lines,
)
from tests.torture.table import Row

JOBS = 'input,instruction,output,steps\na.png,"snow, much",out.mp4,3\nb.png,"a ""red"" box",,\n'
EDITS = 'id,source,edited,instruction,mask\na,a.png,b.png,"snow, much",a.png\nb,b.png,a.png,rain,\n'
INSTRUCTIONS = [
    "turn it into noir style",
    "add a large red shiny star with a crack circling at the top left and remove the green fish",
    "make the red box blue and give the blue box a glow and replace the blue box with a fish",
    "change the light to cold light from the left and replace the background with a navy striped background",
]
LISTS: dict[str, tuple[str, Mutator]] = {  # the file of each form that is damaged, and how
    "own": ("metadata.jsonl", damaged_json_lines),
    "csv_list": ("metadata_vife.csv", damaged_lines),
    "musubi": ("pairs.jsonl", damaged_json_lines),
    "videox_fun": ("metadata.json", damaged_json_file),
    "folders": ("target/0.txt", damaged_letters),
    "ai_toolkit": ("images/0.txt", damaged_letters),
}
# Of each command's module: arguments that end before anything is loaded or made, as the input is missing.
COMMANDS = {
    "imvideoedit.edit": [
        ["none.mp4", "snow", "--seed", "3", "--steps", "2", "--mask", "box:1,2,3,4", "--start", "0.5", "--end", "2"],
        ["none.jsonl", "--quality", "draft", "--device", "cpu", "--input", "style=x", "--codec", "h264", "--fps", "5"],
        ["a.png", "snow", "--adapter", "none.safetensors", "--lora", "none.safetensors", "--guidance", "1.5"],
    ],
    "imvideoedit.app.command": [["--port", "0", "--max-megabytes", "-1", "--host", "127.0.0.1", "--adapter", "none"]],
    "imvideoedit.train": [["+experiment=none", "data.path=none", "task.optimizer.lr=1e-3", "trainer=single"]],
    "imvideoedit.evaluate": [["+suite=none", "out=x", "suite.frames=[1,17]", "sampling.max_area=1024"]],
    "imvideoedit.data.check": [["none", "--max-area", "4096", "--pixel-multiple", "16"]],
}
WORDS = [
    "--help",
    "--",
    "-",
    "-h",
    "--output",
    "--cfg",
    "job",
    "~data",
    "+a=1",
    "++a.b=2",
    "a=[",
    "b={c:",
    "=",
    "x=${y}",
]


def run(scale: float, planted: bool) -> Iterator[Row]:
    """Planted: a table whose header cannot be read as CSV ends in the reader's own error."""
    with tempfile.TemporaryDirectory() as work:
        if not planted:
            yield from fuzz("fuzz_texts", [*_tables(Path(work)), *_data(Path(work)), *_words(), *_commands()], scale)
            return
        with mock.patch("imvideoedit.editing.job_rows._columns", lambda path, table: next(table)):
            yield from fuzz("fuzz_texts", list(_tables(Path(work)))[:1], max(scale, 0.1))


def _tables(work: Path) -> Iterator[Target]:
    folder = work / "lists"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    yield Target("jobs as CSV", 1000, "jobs.csv", [JOBS.encode()], damaged_lines, readers.jobs, folder)
    yield Target("manifest as CSV", 600, "manifest.csv", [EDITS.encode()], damaged_lines, readers.manifest, folder)


def _data(work: Path) -> Iterator[Target]:
    """Every form of training data, with its list, its captions or its parquet file damaged."""
    for form, (file, mutate) in LISTS.items():
        folder = work / form / "data"
        folder.parent.mkdir()
        name = FORMS[form](folder)
        good = (folder / file).read_bytes().replace(f"{folder}/".encode(), b"")
        count = 100 if form == "videox_fun" else 400
        check = readers.pairs(name)
        yield Target(f"pairs: {form}", count, f"data/{file}", [good], mutate, check, folder.parent, seconds=20.0)
    folder = work / "hugging_face" / "data"
    folder.parent.mkdir()
    FORMS["hugging_face"](folder)
    (parquet,) = folder.iterdir()
    yield Target("pairs: parquet", 200, f"data/{parquet.name}", [parquet.read_bytes()], damaged_bytes,
                 readers.pairs("datasets"), folder.parent, guided=False, seconds=30.0)  # fmt: skip


def _words() -> Iterator[Target]:
    tokenizer = build_tokenizer()

    def instruction(path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        check_text("instruction", text)  # as every job does
        for before in (
            None,
            "noir style, a red box at the left, a large green shiny fish with a crack at the top",
            text,
        ):
            edited = apply_instruction(text, before)
            assert edited is None or isinstance(edited, str)
            if edited is not None:
                tokens = tokenizer(edited, truncation=True)["input_ids"]
                assert len(tokens) <= tokenizer.model_max_length

    def box(path: Path) -> None:
        mask = box_mask(path.read_text(encoding="utf-8", errors="surrogateescape"), 32, 48)
        assert mask.shape == (32, 48) and mask.max() == 255

    goods = [each.encode() for each in INSTRUCTIONS]
    yield Target("instructions", 1500, "instruction.txt", goods, damaged_letters, instruction)
    yield Target("boxes", 500, "box.txt", [b"box:1,2,30,20", b"box: 0, 0, 48 ,32"], damaged_letters, box)


def _commands() -> Iterator[Target]:
    for module, seeds in COMMANDS.items():
        importlib.import_module(module)
        count = 500 if module == "imvideoedit.edit" else 150
        goods = [json.dumps(each).encode() for each in seeds]
        yield Target(f"command {module.removeprefix('imvideoedit.')}", count, "argv.json", goods, _damaged_arguments,
                     _command(module), seconds=60.0, guided=False)  # fmt: skip


def _damaged_arguments(data: bytes, rng: Random) -> bytes:
    """Arguments left out, exchanged, repeated, replaced or with damaged letters; never one that makes a page serve."""
    arguments = list(json.loads(data))
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(arguments) + 1)
        match rng.randrange(5):
            case 0:
                del arguments[place : place + 1]
            case 1:
                arguments.insert(place, rng.choice([*WORDS, *TEXTS, *arguments]))
            case 2:
                rng.shuffle(arguments)
            case _ if arguments:
                place = rng.randrange(len(arguments))
                text = damaged_letters(str(arguments[place]).encode("utf-8", "surrogateescape"), rng)
                arguments[place] = text.decode("utf-8", "surrogateescape")
    return json.dumps([each.replace("\0", "") for each in arguments]).encode()


def _command(module: str) -> Callable[[Path], None]:
    """Runs a command in this process: an exit by 0, or by 2 after one line."""

    def check(path: Path) -> None:
        # Good arguments name what is missing, so all of them end in one line.
        arguments = json.loads(path.read_bytes())
        said, errors = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(errors),
            mock.patch.object(sys, "argv", ["command", *arguments]),
            mock.patch("imvideoedit.common.web.serve", _serves),
        ):
            try:
                importlib.import_module(module).main()
            except SystemExit as ended:
                code = ended.code
            else:
                code = 0
        lines = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
        assert "Traceback" not in errors.getvalue(), errors.getvalue()[-300:]
        assert code in (0, None, 1) or (code == 2 and len(lines) == 1), f"exit code {code}, {lines}"

    return check


def _serves(*args: object, **kwargs: object) -> None:
    raise UserError("the page would be served now")
