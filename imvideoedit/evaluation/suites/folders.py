"""Public benchmarks as lists of edits to make, from the folders that their publishers offer.

Layouts follow the publishers' pages. EditVerseBench's ``test.json`` is documented field by field; OpenVE-Bench
and its derivatives list ``edited_type``, ``prompt`` and the video in a CSV; IVEBench has source, edit and target prompt
of every video in its JSON; ReCo-Bench has a list for each of four tasks next to the videos; FiVE-Bench a list for each
of six with both prompts, whose changed words are in brackets, and a folder of masks for each video; the fields of
VIE-Bench's list are not documented. So the usual names of a field are tried in turn; a list with none of them is an
error that names the fields it has. Likewise for first frames, masks and references, which a list may lack.

EditVerseBench's instructions speak of further media by tags, ``<image1>`` or ``<video2>``: in edits of type propagation
the image is the edited first frame, in others a reference; in edits by a mask the second video is the mask.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_json
from imvideoedit.editing.job_rows import read_rows
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.suites.items import I2VEDIT, read_items
from imvideoedit.video.kinds import EITHER, VIDEOS


@dataclass(frozen=True)
class Layout:
    """File and field names of a benchmark.

    Attributes:
        lists: patterns of the files that list the edits, in a folder or below it; the first one with a match is used.
        source, instruction, task, source_prompt, prompt: names of the fields, tried in turn.
        folders: in which videos are searched by name, in addition to the path in the list.
        masks: folder that has a folder of masks, one a frame, for each video, by its name; empty for none.
        bracketed: whether the words that change are in brackets.
        origin: where users download it.
    """

    lists: tuple[str, ...]
    source: tuple[str, ...]
    instruction: tuple[str, ...]
    task: tuple[str, ...]
    source_prompt: tuple[str, ...]
    prompt: tuple[str, ...]
    folders: tuple[str, ...]
    origin: str
    masks: str = ""
    bracketed: bool = False


_SOURCES = (
    "source_video",
    "source_video_path",
    "src_video",
    "original_video",
    "video",
    "video_path",
    "input",
    "source",
)
_INSTRUCTIONS = ("instruction", "edit_instruction", "edit_prompt", "editing_instruction", "prompt", "text")
_TASKS = ("edited_type", "edit_type", "task", "type", "category", "task_type")
_BEFORE = ("source_prompt", "source_caption", "original_prompt")
_AFTER = ("target_prompt", "target_caption", "edited_prompt")
_INPUTS: dict[str, tuple[str, ...]] = {  # fields of each input; tags of media in the instruction come on top
    "first_frame": ("first_frame", "edited_first_frame", "first_frame_path", "edited_image"),
    "mask": ("mask", "mask_video", "mask_path", "src_mask", "source_mask"),
    "reference": ("reference", "reference_image", "ref_image", "ref_image_path", "reference_path", "src_ref_images"),
}
_BRACKETS = str.maketrans("", "", "[]")
_TAG = re.compile(r"<(?:video|image)\d+>")
_PLACES = ("videos", "src_videos", "source_videos", "ivebenchdb_mp4_short", "ivebenchdb_mp4_long", ".")
_IMAGE_PLACES = ("images", "references", "ref_images", "masks", "first_frames", *_PLACES)


def _layout(lists: tuple[str, ...], origin: str, **names: Any) -> Layout:
    usual = {
        "source": _SOURCES,
        "instruction": _INSTRUCTIONS,
        "task": _TASKS,
        "source_prompt": _BEFORE,
        "prompt": _AFTER,
        "folders": _PLACES,
    }
    return Layout(lists, origin=origin, **{**usual, **names})


LAYOUTS = {
    "editversebench": _layout(
        ("test.json", "*/test.json"),
        "huggingface.co/datasets/sooyek/EditVerseBench",
        source=("<video1>",),
        instruction=("<text>",),
    ),
    "openve_bench": _layout(("*.csv", "*.jsonl", "*.json"), "huggingface.co/datasets/Lewandofski/OpenVE-Bench"),
    "ivebench": _layout(
        ("ivebench*prompt*.json", "*prompt*.json"),
        "huggingface.co/datasets/Coraxor/IVEBench",
        source=("video_name", "name", "source_video_name", *_SOURCES),
        instruction=("edit_prompt", *_INSTRUCTIONS),
    ),
    "vie_bench": _layout(("*.json", "*.jsonl", "*.csv", "*/*.json"), "huggingface.co/datasets/Simons212/VIE-Bench"),
    "reco_bench": _layout(
        ("*_data_configs.json", "*/*_data_configs.json", "*.json", "*/*.json", "*.jsonl"),
        "huggingface.co/datasets/HiDream-ai/ReCo-Bench",
    ),
    "five_bench": _layout(
        ("edit_prompt/edit*_FiVE.json", "edit*_FiVE.json"),
        "huggingface.co/datasets/LIMinghan/FiVE-Fine-Grained-Video-Editing-Benchmark",
        source=("video_name", *_SOURCES),
        instruction=("instruction", "target_prompt"),
        masks="bmasks",
        bracketed=True,
    ),
}


BENCHMARKS = (*LAYOUTS, I2VEDIT)


def read_benchmark(name: str, folder: Path) -> list[EditRow]:
    """All edits of a benchmark to make.

    Args:
        name: one of :data:`BENCHMARKS`.
        folder: as its publishers offer it.

    Raises:
        UserError: there is no such benchmark or folder, no list in it, a field or a video is missing.
    """
    if name not in BENCHMARKS:
        raise UserError(f"there is no benchmark {name!r}; choose among {', '.join(BENCHMARKS)}")
    if name == I2VEDIT:
        return read_items(folder)
    layout = LAYOUTS[name]
    lists = next((found for pattern in layout.lists if (found := sorted(folder.glob(pattern)))), [])
    if not lists:
        raise UserError(f"{folder} holds none of {', '.join(layout.lists)}; get {name} from {layout.origin}")
    rows = [_row(record, key, path, folder, layout) for path in lists for key, record in _records(path)]
    if not rows:
        raise UserError(f"{folder} lists no edit; get {name} from {layout.origin}")
    taken: set[str] = set()
    for row in rows:
        if row.id in taken:
            raise UserError(f"{folder} lists {row.id} twice; remove one of its lists")
        taken.add(row.id)
    return rows


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and fields of each entry of a list; the key is its number if the list gives none."""
    if path.suffix != ".json":
        entries: Iterable[tuple[str, Any]] = ((str(number), row) for number, row in enumerate(read_rows(path)))
    else:
        held = read_json(path, object, "get it again")
        if not isinstance(held, dict | list):
            raise UserError(f"{path}: not a JSON list or object of edits; get it again")
        entries = held.items() if isinstance(held, dict) else ((str(n), record) for n, record in enumerate(held))
    for key, record in entries:
        if not isinstance(record, dict):
            raise UserError(f"{path}, entry {key}: it is no object with fields")
        yield key, record


def _row(record: dict[str, Any], key: str, path: Path, folder: Path, layout: Layout) -> EditRow:
    where = f"{path}, entry {key}"
    source = _find(_field(record, layout.source, where), path.parent, folder, layout.folders, where)
    text = _TAG.sub("", _field(record, layout.instruction, where))
    task = _field(record, layout.task, "") or path.stem.removesuffix("_data_configs")
    texts = [" ".join(text.split()), *(_field(record, names, "") for names in (layout.source_prompt, layout.prompt))]
    words, before, after = (each.translate(_BRACKETS) if layout.bracketed else each for each in texts)
    name = re.sub(r"[^\w.-]+", "_", f"{path.stem}_{key}")
    inputs: dict[str, Path | str] = {}
    for kind, value in _inputs(record, layout, task).items():
        inputs[kind] = _look(value, path.parent, folder, _IMAGE_PLACES) or value
    mask = inputs.get("mask")
    if isinstance(mask, Path):
        del inputs["mask"]
    else:
        own = folder / layout.masks / source.stem
        mask = own if layout.masks and own.is_dir() else None
    return EditRow(name, source, words, task=task, source_prompt=before, prompt=after, mask=mask, inputs=inputs)


def _inputs(record: dict[str, Any], layout: Layout, task: str) -> dict[str, str]:
    """Names of the files that come with an edit, by the input's name; media whose use is not known by their tag's."""
    # A list of several images is no input; one that has to have it says so.
    flat = {key: v[0] if isinstance(v, list) and len(v) == 1 else v for key, v in record.items()}
    found = {name: value for name, names in _INPUTS.items() if (value := _field(flat, names, ""))}
    for key in record:
        if _TAG.fullmatch(key) and key not in layout.source and (value := _field(flat, (key,), "")):
            found.setdefault(_of_tag(key, task.lower()), value)
    return found


def _of_tag(tag: str, task: str) -> str:
    if tag == "<image1>":
        return "first_frame" if "propagat" in task else "reference"
    return "mask" if tag == "<video2>" and "mask" in task else tag.strip("<>")


def _field(record: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """The first of some fields that holds text; if none does, empty, or a UserError if ``where`` is given."""
    for name in names:
        if isinstance(record.get(name), str) and record[name].strip():
            return record[name].strip()
    if where:
        raise UserError(f"{where}: none of the fields {', '.join(names)}; it has {', '.join(record)}")
    return ""


def _find(name: str, list_folder: Path, folder: Path, folders: tuple[str, ...], where: str) -> Path:
    """The video of a name, which may lack its suffix."""
    endings = VIDEOS + EITHER
    names = [name] if name.lower().endswith(endings) else [name, *(name + ending for ending in endings)]
    for each in names:
        found = _look(each, list_folder, folder, folders)
        if found is not None:
            return found
    raise UserError(f"{where}: there is no video {name} in {folder}; download the source videos too")


def _look(name: str, list_folder: Path, folder: Path, folders: tuple[str, ...]) -> Path | None:
    """The file of a name; files outside the benchmark's folder are not used."""
    places = [base / place for base in (list_folder, folder) for place in folders]
    for candidate in (place / own for place in places for own in (name, Path(name).name)):
        # Unlike pathlib, os.path takes texts of any length.
        if os.path.isfile(candidate) and candidate.resolve().is_relative_to(folder.resolve()):
            return candidate
    return None
