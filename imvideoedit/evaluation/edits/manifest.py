"""Manifests: lists of edits with source, edited video, instruction, prompts, task and method."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.editing.jobs import VIDEOS, read_rows

LISTS = ("manifest.jsonl", "manifest.csv")
_PATHS = ("source", "edited", "mask")


@dataclass(frozen=True)
class EditRow:
    """One edit of one video.

    Attributes:
        id: of source and instruction; the same for all compared methods.
        source: the video before the edit.
        instruction: what to change.
        edited: the video after the edit; None if it is not made yet.
        method: that made the edit.
        task: of :data:`imvideoedit.world.tasks.TASKS`, or a benchmark's own; empty if unknown.
        source_prompt, prompt: the scene before and after; empty if unknown.
        mask: a video, bright inside the edited region; None if unknown.
    """

    id: str
    source: Path
    instruction: str
    edited: Path | None = None
    method: str = ""
    task: str = ""
    source_prompt: str = ""
    prompt: str = ""
    mask: Path | None = None

    @property
    def name(self) -> str:
        """The row's name in messages."""
        return f"{self.method}/{self.id}"


def read_methods(edits: Path | str, compare: Sequence[Path | str] | str) -> list[EditRow]:
    """The rows of one manifest, and of others to compare with.

    Args:
        edits: a ``.jsonl`` or ``.csv`` manifest, or a folder with one called ``manifest``; paths in it are relative to
            its folder. A row without a method gets the folder's name.
        compare: likewise, one or several; or folders of videos that are named by the ids of ``edits``.

    Raises:
        UserError: a manifest or row is broken, a field or file is missing, or two rows have the same name.
    """
    rows = read_manifest(Path(edits))
    for other in map(Path, [compare] if isinstance(compare, str) else compare):
        rows += read_manifest(other) if _manifest(other) else _with_videos_of(rows, other)
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            raise UserError(f"there are two edits called {row.name}; give each method's edits their own ids")
        seen.add(row.name)
        if row.edited is None:
            raise UserError(f"the edit {row.name} names no edited video; add `edited` to its row")
    return rows


def read_manifest(path: Path) -> list[EditRow]:
    """The rows of one manifest; ``edited`` may be missing.

    Raises:
        UserError: as :func:`read_methods`.
    """
    manifest = _manifest(path)
    if manifest is None:
        raise UserError(f"{path} is no manifest, nor a folder with {' or '.join(LISTS)}")
    rows = []
    for number, values in enumerate(read_rows(manifest), 1):
        where = f"{manifest}, row {number}"
        if isinstance(values, str):
            raise UserError(f"{where}: {values}")
        rows.append(_row(values, manifest, where))
    if not rows:
        raise UserError(f"there is no edit in {manifest}")
    return rows


def write_manifest(rows: Sequence[EditRow], path: Path) -> None:
    """Write rows as ``.jsonl``, with paths inside its folder relative to it."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            values = {f.name: getattr(row, f.name) for f in fields(row)}
            values |= {key: _relative(values[key], path.parent) for key in _PATHS if values[key] is not None}
            file.write(json.dumps({key: value for key, value in values.items() if value}, ensure_ascii=False) + "\n")


def _relative(path: Path, folder: Path) -> str:
    own, base = path.absolute(), folder.absolute()
    return str(own.relative_to(base) if own.is_relative_to(base) else own)


def _manifest(path: Path) -> Path | None:
    if path.is_dir():
        return next((path / name for name in LISTS if (path / name).is_file()), None)
    return path if path.suffix.lower() in (".jsonl", ".csv") else None


def _row(values: dict[str, Any], manifest: Path, where: str) -> EditRow:
    known = [f.name for f in fields(EditRow)]
    given = {key: str(value) for key, value in values.items() if key in known and value not in (None, "")}
    for key in ("source", "instruction"):
        if key not in given:
            raise UserError(f"{where}: it has no {key}; a row has {', '.join(known)}")
    paths = {key: manifest.parent / given.pop(key) for key in _PATHS if key in given}
    for key, path in paths.items():
        if not path.is_file():
            raise UserError(f"{where}: there is no {key} at {path}")
    given.setdefault("id", paths["source"].stem)
    given.setdefault("method", manifest.parent.absolute().name)
    return EditRow(**given, **paths)  # type: ignore[arg-type]


def _with_videos_of(rows: Sequence[EditRow], folder: Path) -> list[EditRow]:
    """The rows of the first method, with the edited videos of a folder in place of its own."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to compare with")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in VIDEOS}
    first = [row for row in rows if row.method == rows[0].method]
    same = list(_paired(first, found, folder.absolute().name))
    if not same:
        raise UserError(f"no video in {folder} is named after an edit of {first[0].method}, such as {first[0].id}.mp4")
    return same


def _paired(rows: Sequence[EditRow], found: dict[str, Path], method: str) -> Iterator[EditRow]:
    for row in rows:
        path = found.get(row.id) or (found.get(row.edited.stem) if row.edited else None)
        if path is not None:
            yield replace(row, edited=path, method=method)
