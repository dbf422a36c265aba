"""What is to be edited: one job, or many from a list or a folder."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.editing.presets import check_quality
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.video.encoder import choose_codec

LISTS = (".jsonl", ".csv")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".gif")
STILLS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
NUMBERS = ("seed", "start", "end", "fps")
SETTINGS = tuple(f.name for f in fields(SamplingConfig))
WHOLE = ("seed", "steps", "max_area", "max_frames", "overlap")


@dataclass(frozen=True)
class Job:
    """One edit of one file.

    Attributes:
        input, output: files.
        instruction: what to change.
        prompt, source_prompt: full descriptions after and before the edit; made or not needed where None.
        expand: how the prompt is made from the instruction, see :func:`imvideoedit.editing.prompts.expand`; on nano by
            its grammar, elsewhere not at all, where None.
        expand_model: folder or hub id of the model for ``expand: local``.
        quality: one of :data:`imvideoedit.editing.presets.PRESETS`, under the settings.
        start, end: seconds of the input that are edited; all of it where None.
        fps: frames per second of the output; the input's own times where None.
        codec: of the output, see ``VideoWriter``; by its name where None.
        side_by_side: also write source and edit beside each other.
        seed: of the noise.
        settings: of :class:`SamplingConfig`, in place of the adapter's own.
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

    def facts(self) -> dict[str, Any]:
        """All that decides the result, but for the adapter; JSON-able and without the folders' names."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("input", "output")}
        return {"input": self.input.name, **own}


@dataclass(frozen=True)
class Entry:
    """A row of a list: a job, or what is wrong with the row."""

    where: str
    job: Job | None
    problem: str = ""


def read_jobs(given: Path, instruction: str | None, output: Path | None, like: Job) -> list[Entry]:
    """The jobs of a list or a folder, in order; a row that is wrong is an entry that says so.

    Args:
        given: a ``.jsonl`` or ``.csv`` list, a row a job with the names of :class:`Job` and of the settings, paths
            relative to the list; or a folder, all of whose videos and images are edited.
        instruction: for rows that have none, and for a folder.
        output: folder of the edited files; ``edited`` beside the list or in the folder if None.
        like: what rows do not say.

    Raises:
        UserError: the list cannot be read at all, or nothing is in it.
    """
    folder = output or (given if given.is_dir() else given.parent) / "edited"
    base = given if given.is_dir() else given.parent
    entries: list[Entry] = []
    taken: dict[Path, str] = {}
    for number, row in enumerate(_rows_of_folder(given) if given.is_dir() else read_rows(given), 1):
        where = f"{given}, row {number}"
        try:
            if isinstance(row, str):
                raise UserError(row)
            job = parse_row(row, base, folder, instruction, like)
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
        UserError: names the field and the mend.
    """
    values = {key: value for key, value in row.items() if value not in (None, "")}
    known = {f.name for f in fields(Job)} - {"settings"} | set(SETTINGS)
    unknown = sorted(str(key) for key in values.keys() - known)
    if unknown:
        raise UserError(f"there is no field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if "input" not in values:
        raise UserError("it has no input; name the video to edit")
    text = values.pop("instruction", instruction)
    if not text:
        raise UserError("it has no instruction; say what to change")
    source = base / str(values.pop("input"))
    name = values.pop("output", None)
    suffix = ".png" if source.suffix.lower() in STILLS else ".mp4"
    target = folder / f"{source.stem}_edited{suffix}" if name is None else base / str(name)
    settings = {key: _number(values.pop(key), key) for key in list(values) if key in SETTINGS}
    SamplingConfig().with_given(**settings)
    numbers = {key: _number(values.pop(key), key) for key in NUMBERS if key in values}
    flags = {"side_by_side": _flag(values.pop("side_by_side"))} if "side_by_side" in values else {}
    given: dict[str, Any] = {**{key: str(value) for key, value in values.items()}, **numbers, **flags}
    given["settings"] = {**like.settings, **settings}
    return replace(like, input=source, instruction=str(text), output=target, **given)


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


def _number(value: Any, key: str) -> Any:
    if key == "solver":
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key} is {value!r}; it must be a number") from error
    if key not in WHOLE:
        return number
    if not number.is_integer():
        raise UserError(f"{key} is {value!r}; it must be a whole number")
    return int(number)


def _flag(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise UserError(f"side_by_side is {value!r}; say true or false")
    return known[str(value).lower()]


def check_job(job: Job) -> None:
    """What the file system can tell before any work is done.

    Raises:
        UserError: the input is missing or empty, or the output is the input or of a name that its codec does not have.
    """
    if not job.input.is_file():
        raise UserError(f"there is no video at {job.input}; check the path")
    if job.input.stat().st_size == 0:
        raise UserError(f"{job.input} is empty; give a video")
    if job.output.resolve() == job.input.resolve():
        raise UserError(f"the output {job.output} is the input; give another output")
    check_quality(job.quality)
    if job.output.suffix.lower() not in STILLS:
        choose_codec(job.output, job.codec)
