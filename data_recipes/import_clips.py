"""Import other people's pairs of clips: their rows as those of the stage ``edits``, for a judge."""

import argparse
import os
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from data_recipes.clip_rows import CLIPS, MEDIA, clip_row
from data_recipes.column_maps import ColumnMap, cells, task_of, text_of
from data_recipes.foreign_rows import stream
from data_recipes.rows import TEXTS, Row, digest, rejected
from data_recipes.shards import Shards
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import content_hash
from imvideoedit.data.fields import inside
from imvideoedit.data.media import medium_shape

PER_SHARD = 20
SIDES = MEDIA[:2]


def import_clips(arguments: argparse.Namespace, mapping: ColumnMap) -> dict[str, Any]:
    """Write the shards, those that are not there as they are to be; returns their manifest.

    Args:
        arguments: of ``import_pairs``.

    Raises:
        UserError: the data set cannot be read, has no rows, or lacks a column.
    """
    shards = Shards(arguments.out / "edits", CLIPS)
    facts = [arguments.origin, arguments.split, arguments.config, {**mapping.columns}, {**mapping.tasks}]
    rows = islice(stream(arguments.origin, arguments.split, arguments.config), arguments.limit)
    seen: set[str] = set()
    keys: list[str] = []
    while named := list(islice(rows, PER_SHARD)):
        made = [_once(to_clip_row(arguments.out, name, fields, mapping), seen) for name, fields in named]
        keys.append(digest(facts, [row["id"] for row in made], [row["reason"] for row in made]))
        if shards.key(len(keys) - 1) != keys[-1]:
            shards.write(len(keys) - 1, made, keys[-1])
    if not keys:
        raise UserError(f"{arguments.origin} holds no rows")
    return shards.finish(keys, {"stage": "edits", "from": arguments.origin})


def to_clip_row(out: Path, name: str, fields: Mapping[str, Any], mapping: ColumnMap) -> Row:
    """A row of ``CLIPS``, whose clips lie in the recipe's folder; rejected if a clip or a text is missing.

    Raises:
        UserError: the data set lacks a required column.
    """
    found = cells(name, fields, mapping)
    kind = text_of(found.get("task"))
    texts = {field: text_of(found.get(field)) for field in TEXTS}
    row = clip_row(id=digest("import", name), kind=kind, task=task_of(kind, mapping.tasks), **texts)
    lacking = [field for field, text in texts.items() if not text]
    if lacking:
        return rejected(row, f"texts: no {' and no '.join(lacking)}")
    if not row["task"]:
        return rejected(row, f"task: {kind or 'nothing'} is none of ours; the preset or the column may say more")
    try:
        files = {field: _file(found[field], fields.get("")) for field in MEDIA if found.get(field)}
        missing = [field for field in SIDES if field not in files]
        if missing:
            raise ValueError(f"there is no {' and no '.join(missing)}")
        shapes = {field: medium_shape(path, field) for field, path in files.items()}
    except (UserError, OSError, ValueError) as error:
        return rejected(row, f"clip: {error}")
    source, target = (shapes[field] for field in SIDES)
    if source != target or source[0] < 2:
        told = [f"{frames} frames of {width}x{height}" for frames, height, width in (source, target)]
        return rejected(row, f"shapes: {' and '.join(told)}; a pair has clips of one length and size")
    hashes = {field: content_hash(path) for field, path in files.items()}
    row |= {field: _taken(out, field, files[field], hashes[field]) for field in files}
    return row | {"id": digest(hashes, texts), "scene": hashes["source"]}


def _file(value: Any, folder: Path | None) -> Path:
    if isinstance(value, Mapping):
        value = value.get("path")
    if not isinstance(value, str) or not value or folder is None:
        raise ValueError("it is no file; name one relative to the list")
    return inside(folder, value)


def _taken(out: Path, field: str, path: Path, key: str) -> str:
    """The name in the recipe's folder of a file, by a hard link where the file system has them."""
    name = f"media/{field}/{key}{path.suffix.lower()}"
    if not (out / name).exists():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), out / name)
        except OSError:  # another disk
            partial = out / f"media/{field}/.{key}.partial"
            shutil.copyfile(path, partial)
            partial.rename(out / name)
    return name


def _once(row: Row, seen: set[str]) -> Row:
    if row["id"] in seen:
        return rejected(row, "duplicate: of an earlier pair")
    seen.add(row["id"])
    return row
