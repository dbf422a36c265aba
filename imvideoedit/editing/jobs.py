"""Many edits: the jobs of a list or a folder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import check_name
from imvideoedit.common.spelling import as_spelled
from imvideoedit.editing.job import Job, edited_name, side_by_side_path
from imvideoedit.editing.job_folders import NAMED, list_media
from imvideoedit.editing.job_inputs import FILE_INPUTS, Given, read_inputs
from imvideoedit.editing.job_rows import parse_flag, parse_number, parse_text, read_rows
from imvideoedit.editing.sampling_config import SamplingConfig

SETTINGS = tuple(f.name for f in fields(SamplingConfig))
NUMBERS = ("seed", "start", "end", "fps")
OF_INPUT = "input."  # begins the column of an input that has none of its own
INTEGERS = ("seed", "steps", "max_area", "max_frames", "overlap")


@dataclass(frozen=True)
class Entry:
    """A row of a list: a job, or what is wrong with the row."""

    where: str
    job: Job | None
    problem: str = ""


def read_jobs(
    given: Path,
    instruction: str | None,
    output: Path | None,
    like: Job,
    tell: Callable[[str], None] = lambda note: None,
) -> list[Entry]:
    """The jobs of a list or a folder, in order; a row that is wrong is an entry that says so.

    Args:
        given: a ``.jsonl`` or ``.csv`` list, a row for each job with the names of :class:`Job` and of the settings, and
            inputs as ``mask``, ``first_frame``, ``reference`` or ``input.NAME``; paths relative to the list. Or a
            folder, all of whose videos and images are edited.
        instruction: for rows that have none, and for a folder.
        output: folder of the edited files; ``edited`` next to the list or in the folder if None. The edit of
            ``a/clip.mp4`` is ``a/clip_edited.mp4`` in it; of ``clip.mp4`` and ``clip.mov`` there, each has its ending
            in its name, too.
        like: values for what rows leave out.
        tell: called with one line on what of a folder is not edited, if anything.

    Raises:
        UserError: the list or folder cannot be read, or is empty.
    """
    base = given if given.is_dir() else given.parent
    if given.is_dir():
        media, note = list_media(given)
        rows: list[dict[str, Any] | str] = [{"input": path.name} for path in media]
        if note:
            tell(note)
    else:
        rows = list(read_rows(given))
    found: list[Job | str] = []
    for row in rows:
        try:
            if isinstance(row, str):
                raise UserError(row)
            found.append(parse_row(row, base, output or base / "edited", instruction, like))
        except UserError as error:
            found.append(str(error))
    if not found:
        raise UserError(f"there is nothing to edit in {given}")
    entries = _kept_apart(given, found, [isinstance(row, dict) and not row.get("output") for row in rows])
    return _without_edits(entries, tell) if given.is_dir() else entries


def _kept_apart(given: Path, found: list[Job | str], unnamed: list[bool]) -> list[Entry]:
    """Entries, no two of which write one file: inputs that differ in their endings alone keep them in the names.

    Args:
        unnamed: which rows name no output.
    """
    free_jobs = [job for job, free in zip(found, unnamed, strict=True) if free and isinstance(job, Job)]
    sharing = Counter(output for output, _ in {(job.output, job.input) for job in free_jobs})
    entries: list[Entry] = []
    taken: dict[Path, str] = {}
    for number, (job, free) in enumerate(zip(found, unnamed, strict=True), 1):
        where = f"{given}, row {number}"
        try:
            if isinstance(job, str):
                raise UserError(job)
            if free and sharing[job.output] > 1 and job.input.suffix:
                name = f"{job.input.name}_edited{job.output.suffix}"
                job = replace(job, output=job.output.with_name(name))
            for path in job.files:
                first = taken.setdefault(path, where)
                if first != where:
                    raise UserError(f"{path} is the output of {first} too; give each its own")
            entries.append(Entry(where, job))
        except UserError as error:
            entries.append(Entry(where, None, str(error)))
    return entries


def _without_edits(entries: list[Entry], tell: Callable[[str], None]) -> list[Entry]:
    """Entries of a folder but for those that would edit an edit of another one, where both lie in one folder."""
    jobs = [entry.job for entry in entries if entry.job is not None]
    edits = {path for job in jobs for path in (job.output, side_by_side_path(job.output))}
    kept = [entry for entry in entries if entry.job is None or entry.job.input not in edits]
    if len(kept) < len(entries):
        names = [entry.job.input.name for entry in entries if entry not in kept and entry.job is not None]
        tell(f"not edited, as they are edits of other files here: {', '.join(names[:NAMED])}{_more(names)}")
    return kept


def _more(names: list[str]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""


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
    parsed = {key: _parse(key, value) for key, value in values.items()}
    name = Path(as_spelled(base, parsed.pop("input")))
    source = base / name
    check_name(source)
    # Below the list's folder an input's own folder is kept, so that a/clip.mp4 and b/clip.mp4 are, in whatever list.
    inside = () if name.is_absolute() or ".." in name.parts else name.parent.parts
    output = base / parsed.pop("output") if "output" in parsed else folder.joinpath(*inside, edited_name(source))
    settings = like.settings | {key: parsed.pop(key) for key in SETTINGS if key in parsed}
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


def _parse(key: str, value: Any) -> Any:
    """A value of a row as its field's type."""
    if key == "side_by_side":
        return parse_flag(key, value)
    if key == "solver" or key not in (*SETTINGS, *NUMBERS):
        return parse_text(key, value)
    return parse_number(key, value, whole=key in INTEGERS)
