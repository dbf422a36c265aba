"""Folders of files with equal names: pairs in ``source/`` and ``target/``, or as ai-toolkit has them.

A medium is an image, a clip, or a folder of frames; its name without the ending is the row's. Captions are ``.txt`` or
``.caption`` files of that name beside the target, in ``captions/``, or beside the source. Names are equal where they
read equal, as macOS and others code letters with accents in two ways.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.data.columns import says
from imvideoedit.data.fields import inside
from imvideoedit.data.media import Medium, is_medium
from imvideoedit.data.pair_record import PROMPTS, SIDES, PairRecord, Rows

CAPTIONS = "captions"
WRITTEN = (".txt", ".caption")  # endings of captions
NAMED = 3  # of the files that are no part of the data


def read_folders(path: Path, columns: Mapping[str, str]) -> Rows:
    """A folder with ``source/`` and ``target/``, or others that ``columns`` names; further ones are media by name.

    Raises:
        UserError: one of both is missing.
    """
    named = {"source": "source", "target": "target", **columns}
    others = {one: one for one in subfolders(path) if one not in named.values() and one != CAPTIONS}
    return _rows(path, "folders", {**named, **others})


def read_ai_toolkit(path: Path, columns: Mapping[str, str]) -> Rows:
    """A folder as ai-toolkit reads it: images or clips with captions, and a folder ``control`` with their sources.

    The targets lie in ``path`` itself or in its only other folder; the first of several ``control`` folders counts.

    Raises:
        UserError: there is no control folder, or more than one that may hold the targets.
    """
    found = subfolders(path)
    controls = [one for one in found if one.startswith("control")]
    named = dict(columns)
    if "source" not in named:
        if not controls:
            raise UserError(f"{path}: holds no folder control with the sources; name it, as by columns source=FOLDER")
        named["source"] = controls[0]
    rest = [one for one in found if one not in (*controls, *named.values(), CAPTIONS, "mask")]
    if "target" not in named:
        if any(is_medium(file.name) for file in path.iterdir() if file.is_file()):
            named["target"] = "."
        elif len(rest) == 1:
            named["target"] = rest.pop()
        else:
            held = ", ".join(rest) or "none"
            raise UserError(f"{path}: of the folders {held} one must hold the targets; give columns target=FOLDER")
    others = {one: one for one in found if one not in named.values() and one != CAPTIONS}
    return _rows(path, "ai_toolkit", {**named, **others})


def subfolders(path: Path) -> list[str]:
    """Names of a folder's own folders; those that begin with a dot or an underscore hold caches."""
    return sorted(one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith((".", "_")))


def _rows(path: Path, form: str, folders: Mapping[str, str]) -> Rows:
    places = {name: path / folder for name, folder in folders.items()}
    for name, place in places.items():
        if not place.is_dir():
            raise UserError(f"{path}: has no folder {folders[name]}, which is to hold its {name}; give columns")
    files = {name: _by_stem(path, place, place == path) for name, place in places.items()}
    if (path / CAPTIONS).is_dir():
        files[CAPTIONS] = _by_stem(path, path / CAPTIONS, False)
    stems = sorted(stem for stem in set(files["source"]) | set(files["target"]) if _has_media(files, stem))
    form = says(form, folders) + _says_unused([places[side] for side in SIDES])
    return Rows(len(stems), partial(_read_row, path, folders, files, stems), form)


_Files = dict[str, dict[str, list[str]]]
"""By field and by stem, the names of files relative to the data folder."""


def _by_stem(root: Path, place: Path, files_alone: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in sorted(place.iterdir()):
        if one.name.startswith((".", "_")) or (files_alone and one.is_dir()):
            continue
        if one.is_dir() or is_medium(one.name) or _is_caption(one.name):
            stem = unicodedata.normalize("NFC", one.name if one.is_dir() else one.stem)
            found.setdefault(stem, []).append(str(one.relative_to(root)))
    return found


def _says_unused(places: Sequence[Path]) -> str:
    """What lies beside the pairs and is no part of them, in words; empty if there is nothing."""
    files = [one for place in places for one in sorted(place.iterdir()) if one.is_file()]
    unused = [
        str(one.relative_to(one.parent.parent))
        for one in files
        if not (one.name.startswith((".", "_")) or is_medium(one.name) or _is_caption(one.name))
    ]
    more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
    return f"; not used: {', '.join(unused[:NAMED])}{more}" if unused else ""


def _is_caption(name: str) -> bool:
    return name.lower().endswith(WRITTEN)


def _has_media(files: _Files, stem: str) -> bool:
    return any(not _is_caption(name) for side in SIDES for name in files[side].get(stem, []))


def _read_row(root: Path, folders: Mapping[str, str], files: _Files, stems: list[str], row: int) -> PairRecord:
    stem = stems[row]
    label = f"row {row} ({stem})"
    media: dict[str, Medium] = {}
    captions: dict[str, str] = {}
    for name, found in files.items():
        names = [one for one in found.get(stem, []) if not _is_caption(one)]
        if len(names) > 1:
            raise UserError(f"{label}: {' and '.join(names)} have one name; keep one of them")
        if names:
            media[name] = _located(root, names[0], label, name)
        written = [one for one in found.get(stem, []) if _is_caption(one)]
        if len(written) > 1:
            raise UserError(f"{label}: {' and '.join(written)} are both its caption; keep one of them")
        if written:
            captions[name] = _text(_located(root, written[0], label, name), label)
    for side, other in (SIDES, SIDES[::-1]):
        if side not in media:
            partner = next(one for one in files[other][stem] if not _is_caption(one))
            raise UserError(
                f"{label}: {partner} has no partner in the folder {folders[side]}; give it one of that name, or "
                "remove it"
            )
    texts = _named_texts(captions, label)
    if not any(name in texts for name in PROMPTS):
        raise UserError(
            f"{label}: has no caption; write one into {Path(folders['target'], stem)}.txt or remove the row"
        )
    return PairRecord(stem, media, texts, row)


def _named_texts(captions: Mapping[str, str], label: str) -> dict[str, str]:
    """The first caption of target, captions and source is that of the edited scene; a further one is the source's."""
    prompts = {name: captions[name] for name in ("target", CAPTIONS, "source") if name in captions}
    texts = {name: text for name, text in captions.items() if name not in prompts}
    if not prompts:
        return texts
    texts.setdefault("edited_prompt", prompts.pop(next(iter(prompts))))
    if prompts.get(CAPTIONS, texts["edited_prompt"]) != texts["edited_prompt"]:
        raise UserError(f"{label}: has other captions beside the target and in {CAPTIONS}; keep one of them")
    if "source" in prompts:
        texts.setdefault("source_prompt", prompts["source"])
    return texts


def _located(root: Path, name: str, label: str, field: str) -> Path:
    try:
        return inside(root, name)
    except ValueError as error:
        raise UserError(f"{label}: {field} {error}") from error


def _text(file: Path, label: str) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except ValueError as error:
        raise UserError(f"{label}: {file} is no text in UTF-8; save it as such") from error
    if not text:
        raise UserError(f"{label}: {file} is empty; write the caption or remove the row")
    return text
