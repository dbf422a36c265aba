"""From the fields of a row, in whatever form it is written, to media and texts, with files in the data folder alone."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.spelling import as_spelled
from imvideoedit.data.media import Medium, is_medium
from imvideoedit.data.pair_record import PROMPTS, SIDES, PairRecord

TEXTS = (*PROMPTS, "source_prompt", "id", "task")  # never a file's name
NAME_LENGTH = 255  # bytes of the longest file name, and characters of the longest text that may be one

Locate = Callable[[Any], Medium]
"""From a field's value to its medium; raises ``ValueError`` with the end of a sentence."""


def inside(folder: Path, name: Any, absolute: bool = False) -> Path:
    """The file or folder of a name that leads nowhere but into ``folder``.

    Args:
        absolute: whether an absolute name will do, if it is of something in the folder.

    Raises:
        ValueError: it is no name, or leads elsewhere.
    """
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"is not a file name; give one relative to the folder {folder}")
    if "://" in name:
        raise ValueError(f"{name!r} is an address, and nothing is fetched; download it into the data folder")
    path = folder / name
    if "\0" in name or any(len(part.encode(errors="surrogatepass")) > NAME_LENGTH for part in path.parts):
        raise ValueError(f"{name[:60]!r}… is no file name; give one relative to the folder {folder}")
    rooted = bool(PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive)
    strange = (rooted and not absolute) or ".." in PureWindowsPath(name).parts
    path = folder / as_spelled(folder, name)
    if strange or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the data folder; move the file into it and give its relative path")
    return path


def mapped_record(
    fields: Mapping[str, Any], row: int, columns: Mapping[str, str], locate: Locate, named: bool = False
) -> PairRecord:
    """The record of a row of foreign data.

    Args:
        fields: values by column; None and empty texts are missing.
        columns: the column of each of our names; other columns keep their own.
        named: whether ``id`` falls back to the target's file name.

    Raises:
        UserError: a side or all texts are missing, or a medium is not in the data folder; names the row.
    """
    given = {key: value for key, value in fields.items() if value not in (None, "", [])}
    own = {name: given[column] for name, column in columns.items() if column in given}
    taken = set(columns.values())
    others = {key: value for key, value in given.items() if key not in taken and key not in own}
    given_id = {**others, **own}.get("id")
    label = f"row {row}" if given_id is None else f"row {row} ({given_id})"
    for side in SIDES:
        if side not in own:
            raise UserError(f"{label}: lacks {columns[side]}, which is its {side}; fill it in or remove the row")
    media, texts = split(own, others, locate, label)
    if not any(texts.get(name, "").strip() for name in PROMPTS):
        wanted = " or ".join(columns[name] for name in PROMPTS if name in columns)
        raise UserError(f"{label}: has no caption; fill in {wanted} or remove the row")
    target = own["target"][0] if isinstance(own["target"], list) else own["target"]
    fallback = target if named and isinstance(target, str) else str(row)
    return PairRecord(str(fallback if given_id is None else given_id), media, texts, row)


def split(
    own: Mapping[str, Any], others: Mapping[str, Any], locate: Locate, label: str
) -> tuple[dict[str, Medium], dict[str, str]]:
    """Media and texts of a row.

    Args:
        own: by names that are known to be wanted: what looks like a file there must be one.
        others: columns that the data happen to have; a file's name that leads nowhere is a text like others.

    Raises:
        UserError: something wanted is not in the data folder.
    """
    media: dict[str, Medium] = {}
    texts: dict[str, str] = {}
    for name, value in {**others, **own}.items():
        if name in SIDES or (name not in TEXTS and _looks_like_a_medium(value, locate)):
            try:
                media[name] = locate(value)
                continue
            except ValueError as error:
                if name in own:
                    raise UserError(f"{label}: {name} {error}") from error
        if isinstance(value, Mapping):
            value = value.get("path")
        if isinstance(value, list) and any(isinstance(one, str) and is_medium(one) for one in value):
            value = ", ".join(map(str, value))  # so that an input of this name is refused, and not missing
        if isinstance(value, str):
            texts[name] = value
    texts.pop("id", None)
    texts.pop("task", None)
    return media, texts


def _looks_like_a_medium(value: Any, locate: Locate) -> bool:
    if isinstance(value, bytes):
        return True
    if isinstance(value, Mapping):
        return bool(value.get("bytes") or value.get("path"))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or len(value) > NAME_LENGTH or "\n" in value:
        return False
    if is_medium(value):
        return True
    try:
        found = locate(value)
    except ValueError:
        return False
    return isinstance(found, Path) and found.is_dir()
