"""Which files of a data set are for training: by the names of its folders and files, as Hugging Face reads them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from imvideoedit.common.errors import UserError

TRAIN = "train"
LISTS = (".jsonl", ".csv", ".json", ".arrow")  # of a data set that lies in the folder itself
NAMES = {
    TRAIN: (TRAIN, "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def parquet_in(folder: Path) -> list[Path]:
    """The parquet files in a folder and its subfolders; hidden ones, and folders of copies and caches, do not count."""
    found = sorted(folder.rglob("*.parquet"))
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def split_of(path: Path) -> str | None:
    """The split that a relative path says: by the file's name, or else by its nearest folder; None if none does.

    A name says a split where one of ``NAMES`` stands alone in it: ``train-00000-of-00002.parquet``, ``my_test.parquet``
    or ``default/validation/0000.parquet``.
    """
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        found = [name for name, names in NAMES.items() if set(names) & set(words)]
        if len(found) == 1:
            return found[0]
    return None


def named_split(name: str) -> str:
    """The common name of a split: ``validation`` for ``val`` and ``dev``; others stay as they are."""
    return next((split for split, names in NAMES.items() if name.lower() in names), name)


def files_of_split(folder: Path, files: Sequence[Path], split: str | None) -> tuple[list[Path], str]:
    """The files of one split, and in words what was chosen and what not; empty where there is only one kind.

    Without a ``split`` it is ``train``, or, where no file is of that, those of no split; never another one.

    Raises:
        UserError: there is no such split; names those that there are.
    """
    groups: dict[str | None, list[Path]] = {}
    for file in files:
        groups.setdefault(split_of(file.relative_to(folder)), []).append(file)
    wanted = TRAIN if split is None else named_split(split)
    if wanted not in groups and split is None and None in groups:
        return groups[None], _says("the files of no split", groups, None)
    if wanted not in groups:
        raise _missing(folder, split, groups)
    return groups[wanted], _says(f"the split {wanted}", groups, wanted)


def choose_split(where: Path, splits: Iterable[str], split: str | None) -> str:
    """The name among ``splits`` of a saved data set that is meant: ``split``, or ``train``, or the only one.

    Raises:
        UserError: there is none; names those that there are.
    """
    present = {named_split(name): name for name in splits}
    if split is None and len(present) == 1:
        (only,) = present
        if only in (TRAIN, *(set(present) - set(NAMES))):
            return present[only]
    wanted = TRAIN if split is None else named_split(split)
    if wanted not in present:
        raise _missing(where, split, present)
    return present[wanted]


def split_folder(path: Path, split: str | None) -> tuple[Path, str | None]:
    """The folder of a split, such as ``validation/`` with a list of its own, and None; or what was given.

    Data sets whose files say their splits are left as they are.

    Raises:
        UserError: without a ``split``, a folder holds only folders of splits, and none is called train.
    """
    if not path.is_dir() or parquet_in(path) or (path / "dataset_dict.json").is_file():
        return path, split
    if any(one.is_file() and one.suffix in LISTS for one in path.iterdir()):
        return path, split
    folders = {split_of(Path(one.name)): one for one in sorted(path.iterdir()) if one.is_dir()}
    folders = {name: one for name, one in folders.items() if name}
    wanted = TRAIN if split is None else named_split(split)
    if wanted in folders:
        return folders[wanted], None
    if folders and split is None and "source" not in {one.name for one in path.iterdir()}:
        raise _missing(path, split, folders)
    return path, split


def refuse_split(where: Path, split: str | None, form: str) -> None:
    """For data that know no splits.

    Raises:
        UserError: one is asked for that ``where`` does not have by its own name.
    """
    if split is not None and split_of(Path(where.name)) != named_split(split):
        raise UserError(f"{where}: has no splits as {form}, so split={split} is without effect; leave it out")


def _missing(where: Path, split: str | None, present: Iterable[str | None]) -> UserError:
    names = ", ".join(sorted(name for name in present if name)) or "none"
    asked = f"no split {split}" if split else "no split train"
    remedy = "give one of them as split=…" if names != "none" else "leave split out"
    return UserError(f"{where}: {asked}; it holds the splits {names}: {remedy}, or point to its files directly")


def _says(chosen: str, groups: dict[str | None, list[Path]], wanted: str | None) -> str:
    others = [f"{name or 'of no split'} ({len(files)})" for name, files in groups.items() if name != wanted]
    files = f"{len(groups[wanted])} file{'s' if len(groups[wanted]) > 1 else ''}"
    return f"; {chosen} ({files}), not used: {', '.join(sorted(others))}" if others else ""
