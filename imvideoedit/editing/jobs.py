"""What is to be edited: one job, or many from a list or a folder."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.editing.job_inputs import FILE_INPUTS, Given, as_given, check_files, describe_inputs, read_inputs
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.video.encoder import choose_codec
from imvideoedit.video.reader import Clip

LISTS = (".jsonl", ".csv")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".gif")
STILLS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SETTINGS = tuple(f.name for f in fields(SamplingConfig))
NUMBERS = ("seed", "start", "end", "fps")
OF_INPUT = "input."  # begins the column of an input that has none of its own
INTEGERS = ("seed", "steps", "max_area", "max_frames", "overlap")
FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Job:
    """One edit of one file.

    Attributes:
        input, output: files.
        instruction: what to change.
        prompt, source_prompt: full descriptions after and before the edit; None where there is none.
        expand: how the prompt is made from the instruction, see :func:`imvideoedit.editing.prompts.expand`.
        expand_model: folder or hub id of the model for ``expand: local``.
        quality: see :meth:`SamplingConfig.preset`.
        start, end: range of the input to edit, in seconds; all of it where None.
        fps: frames per second of the output; the input's own times where None.
        codec: of the output, see ``VideoWriter``; by its name where None.
        side_by_side: also write source and edit side by side.
        seed: of the noise.
        settings: values of :class:`SamplingConfig` that override the adapter's own.
        inputs: what the adapter's method takes besides, by name: files, folders, texts, a mask's ``box:x,y,w,h``.
    """

    input: Path
    instruction: str
    output: Path
    prompt: str | None = None
    source_prompt: str | None = None
    expand: str | None = None
    expand_model: str | None = None
    quality: str = "best"
    start: float | None = None
    end: float | None = None
    fps: float | None = None
    codec: str | None = None
    side_by_side: bool = False
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Given | Path | str] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Given]:
        """The inputs, checked as far as their texts show; files' names in them are relative to the current folder.

        Raises:
            UserError: an input is none.
        """
        return as_given(self.inputs)

    def facts(self) -> dict[str, Any]:
        """All that decides the result except the model, JSON-able and without the folders' names.

        Raises:
            UserError: a file of the inputs is missing, whose contents count.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("input", "output", "inputs")}
        return {"input": self.input.name, **own, "inputs": describe_inputs(self.given)}

    def open_clip(self) -> Clip:
        """The part of the input that is edited.

        Raises:
            UserError: the input is missing or cannot be read, the range is empty, the output is the input, or its
                name does not fit the codec; a file of ``inputs`` is missing or is the output.
        """
        if not self.input.is_file():
            raise UserError(f"there is no video at {self.input}; check the path")
        if self.input.stat().st_size == 0:
            raise UserError(f"{self.input} is empty; give a video")
        if self.output.resolve() == self.input.resolve():
            raise UserError(f"the output {self.output} is the input; give another output")
        if self.output.suffix.lower() not in STILLS:
            choose_codec(self.output, self.codec)
        check_files(self.given, self.output)
        return Clip(self.input, self.start, self.end, self.fps)


@dataclass(frozen=True)
class Entry:
    """A row of a list: a job, or what is wrong with the row."""

    where: str
    job: Job | None
    problem: str = ""


def edited_name(path: Path) -> str:
    """The output's name where none is given."""
    return f"{path.stem}_edited{'.png' if path.suffix.lower() in STILLS else '.mp4'}"


def read_jobs(given: Path, instruction: str | None, output: Path | None, like: Job) -> list[Entry]:
    """The jobs of a list or a folder, in order; a row that is wrong is an entry that says so.

    Args:
        given: a ``.jsonl`` or ``.csv`` list, a row for each job with the names of :class:`Job` and of the settings, and
            inputs as ``mask``, ``first_frame``, ``reference`` or ``input.NAME``; paths relative to the list. Or a
            folder, all of whose videos and images are edited.
        instruction: for rows that have none, and for a folder.
        output: folder of the edited files; ``edited`` next to the list or in the folder if None.
        like: values for what rows leave out.

    Raises:
        UserError: the list cannot be read, or is empty.
    """
    base = given if given.is_dir() else given.parent
    entries: list[Entry] = []
    taken: dict[Path, str] = {}
    for number, row in enumerate(_rows_of_folder(given) if given.is_dir() else read_rows(given), 1):
        where = f"{given}, row {number}"
        try:
            if isinstance(row, str):
                raise UserError(row)
            job = parse_row(row, base, output or base / "edited", instruction, like)
            first = taken.setdefault(job.output, where)
            if first != where:
                raise UserError(f"{job.output} is the output of {first} too; give each its own")
            entries.append(Entry(where, job))
        except UserError as error:
            entries.append(Entry(where, None, str(error)))
    if not entries:
        raise UserError(f"there is nothing to edit in {given}")
    return entries


def parse_row(row: dict[str, Any], base: Path, folder: Path, instruction: str | None, like: Job) -> Job:
    """A job from a row of texts or values.

    Raises:
        UserError: names the field and how to fix it.
    """
    values = {key: value for key, value in row.items() if value not in (None, "")}
    inputs = like.given | _take_inputs(values, base)
    known = {f.name for f in fields(Job)} - {"settings"} | {*SETTINGS, *FILE_INPUTS, "input.NAME"}
    unknown = sorted(str(key) for key in values.keys() - known)
    if unknown:
        raise UserError(f"there is no field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if "input" not in values:
        raise UserError("it has no input; name the video to edit")
    if not values.setdefault("instruction", instruction):
        raise UserError("it has no instruction; say what to change")
    source = base / str(values.pop("input"))
    name = values.pop("output", None)
    parsed = {key: _parse(key, value) for key, value in values.items()}
    settings = like.settings | {key: parsed.pop(key) for key in SETTINGS if key in parsed}
    output = folder / edited_name(source) if name is None else base / str(name)
    job = replace(like, input=source, output=output, settings=settings, inputs=inputs, **parsed)
    SamplingConfig().preset(job.quality).override(**settings)
    return job


def _take_inputs(values: dict[str, Any], base: Path) -> dict[str, Given]:
    """Remove the inputs from a row's values."""
    given = values.pop("inputs", {})
    if not isinstance(given, dict):
        raise UserError(f'inputs is {given!r}; give an object, such as {{"mask": "a.png"}}')
    pairs = [(str(name), value) for name, value in given.items() if value not in (None, "")]
    for key in [key for key in values if key in FILE_INPUTS or str(key).startswith(OF_INPUT)]:
        pairs.append((key.removeprefix(OF_INPUT), values.pop(key)))
    return read_inputs(pairs, base)


def _rows_of_folder(folder: Path) -> list[dict[str, Any]]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (*VIDEOS, *STILLS))
    return [{"input": path.name} for path in found]


def read_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    """Rows of a ``.jsonl`` or ``.csv`` list; a text where one is broken.

    Raises:
        UserError: the list cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error}); give UTF-8 text") from error
    if path.suffix.lower() == ".csv":
        yield from csv.DictReader(text.splitlines())
        return
    for line in filter(str.strip, text.splitlines()):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield f"it is no JSON ({error}); give one object a line"
            continue
        yield row if isinstance(row, dict) else "it is no JSON object; give one object a line"


def _parse(key: str, value: Any) -> Any:
    """A value of a row as its field's type."""
    if key == "side_by_side":
        if str(value).lower() not in FLAGS:
            raise UserError(f"{key} is {value!r}; say true or false")
        return FLAGS[str(value).lower()]
    if key == "solver" or key not in (*SETTINGS, *NUMBERS):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key} is {value!r}; it must be a number") from error
    if key not in INTEGERS:
        return number
    if not number.is_integer():
        raise UserError(f"{key} is {value!r}; it must be a whole number")
    return int(number)
