"""Manifests: lists of edits with source, edited video, instruction, prompts, task, method, and what a method may take.

Columns are the names of :class:`EditRow`, ``first_frame`` and ``reference``, and ``input.NAME`` for any other input.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.editing.job_folders import list_media
from imvideoedit.editing.job_rows import read_rows
from imvideoedit.video.kinds import EITHER, VIDEOS

LISTS = ("manifest.jsonl", "manifest.csv")
_PATHS = ("source", "edited", "mask")
_IMAGES = ("first_frame", "reference")  # inputs with columns of their own, always files
_OF_INPUT = "input."  # begins the column of any other


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
        mask: a video, bright inside the edited region; None if unknown. An input too, where a method takes one. Of a
            benchmark's edit that is not made yet also a folder of images.
        inputs: what a method may take besides, by name: a file, or a text where there is no such file.
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
    inputs: Mapping[str, Path | str] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """The row's name in messages."""
        return f"{self.method}/{self.id}"

    @property
    def given(self) -> dict[str, Path | str]:
        """All inputs by name, the mask among them."""
        return {**self.inputs} if self.mask is None else {"mask": self.mask, **self.inputs}


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
            values = {f.name: getattr(row, f.name) for f in fields(row) if f.name != "inputs"}
            values |= {key if key in _IMAGES else _OF_INPUT + key: value for key, value in row.inputs.items()}
            paths = {key: value for key, value in values.items() if isinstance(value, Path)}
            values |= {key: _relative(value, path.parent) for key, value in paths.items()}
            file.write(json.dumps({key: value for key, value in values.items() if value}, ensure_ascii=False) + "\n")


def _relative(path: Path, folder: Path) -> str:
    own, base = path.absolute(), folder.absolute()
    return str(own.relative_to(base) if own.is_relative_to(base) else own)


def _manifest(path: Path) -> Path | None:
    if path.is_dir():
        return next((path / name for name in LISTS if (path / name).is_file()), None)
    return path if path.suffix.lower() in (".jsonl", ".csv") else None


def _row(values: dict[str, Any], manifest: Path, where: str) -> EditRow:
    known = [f.name for f in fields(EditRow) if f.name != "inputs"]
    given = {key: str(value) for key, value in values.items() if key in known and value not in (None, "")}
    for key in ("source", "instruction"):
        if key not in given:
            columns = ", ".join((*known, *_IMAGES, f"{_OF_INPUT}NAME"))
            raise UserError(f"{where}: it has no {key}; a row has {columns}")
    paths = {key: manifest.parent / given.pop(key) for key in _PATHS if key in given}
    for key, path in paths.items():
        if not os.path.isfile(path):  # unlike pathlib, takes names of any length
            other = "; it is a file here, and a box or a folder for the adapter is input.mask" if key == "mask" else ""
            raise UserError(f"{where}: there is no {key} at {path}{other}")
    given.setdefault("id", paths["source"].stem)
    given.setdefault("method", manifest.parent.absolute().name)
    return EditRow(**given, **paths, inputs=_inputs(values, manifest.parent, where))  # type: ignore[arg-type]


def _inputs(values: dict[str, Any], folder: Path, where: str) -> dict[str, Path | str]:
    """The inputs in a row's columns, files as paths."""
    found: dict[str, Path | str] = {}
    for key, value in values.items():
        name = str(key).removeprefix(_OF_INPUT)
        if value in (None, "") or (name == key and key not in _IMAGES):
            continue
        if not isinstance(value, str) or not name.isidentifier():
            raise UserError(f"{where}: {key} is {json.dumps(value)}; give a file or a text by an input's name")
        if name in found or (name == "mask" and values.get("mask") not in (None, "")):
            raise UserError(f"{where}: the input {name} is given twice; leave one out")
        found[name] = _file(value, folder) or value
        if key in _IMAGES and found[name] == value:
            raise UserError(f"{where}: there is no {key} at {value} in {folder}")
    return found


def _file(name: str, folder: Path) -> Path | None:
    """The file or folder of a name relative to a folder, and inside it; None where there is none."""
    place = os.path.normpath(name)
    if os.path.isabs(place) or place.split(os.sep)[0] in (os.pardir, os.curdir):
        return None
    # Unlike pathlib, os.path takes texts of any length.
    return folder / place if os.path.exists(os.path.join(folder, place)) else None


def _with_videos_of(rows: Sequence[EditRow], folder: Path) -> list[EditRow]:
    """The rows of the first method, with the edited videos of a folder in place of its own."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to compare with")
    media, _ = list_media(folder)
    # A video goes before a still of the same name, such as its thumbnail.
    found = {path.stem: path for path in sorted(media, key=lambda path: path.suffix.lower() in VIDEOS + EITHER)}
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
