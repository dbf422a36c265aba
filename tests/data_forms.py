"""Small data sets in the forms that people have: three pairs each, of images or of clips of seven frames."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from tests.clips import flat_frames, make_clip
from tests.pair_folder import write_pairs

PAIRS, FRAMES = 3, 7
CAPTIONS = [f"a ball on the sand {row}" for row in range(PAIRS)]


def level(row: int, side: str) -> int:
    """The grey level of a pair's source or target."""
    return {"source": 40, "target": 160}[side] + 20 * row


def image(path: Path, grey: int, size: tuple[int, int] = (32, 48)) -> Path:
    """A flat image of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)
    return path


def clip(path: Path, grey: int, frames: int = FRAMES) -> Path:
    """A flat clip of 32x48 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_clip(path, flat_frames([grey] * frames))


def own(folder: Path) -> str:
    write_pairs(folder, PAIRS)
    return "own"


def folders(folder: Path) -> str:
    for row, caption in enumerate(CAPTIONS):
        for side in ("source", "target"):
            image(folder / side / f"{row}.png", level(row, side))
        (folder / "target" / f"{row}.txt").write_text(caption)
    return "folders"


def csv_list(folder: Path) -> str:
    """As ViFeEdit's README has it: ``video`` is the edited one, ``vife_edit_video`` the source."""
    folder.mkdir()
    with (folder / "metadata_vife.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "prompt", "vife_edit_video"])
        for row, caption in enumerate(CAPTIONS):
            image(folder / f"tar_{row}.png", level(row, "target"))
            image(folder / f"src_{row}.png", level(row, "source"))
            rows.writerow([f"tar_{row}.png", caption, f"src_{row}.png"])
    return "csv"


def musubi(folder: Path) -> str:
    """Absolute paths within the folder, as in musubi-tuner's documents."""
    rows = []
    for row, caption in enumerate(CAPTIONS):
        target = image(folder / f"images/{row}.png", level(row, "target"))
        source = image(folder / f"control/{row}.png", level(row, "source"))
        rows.append({"image_path": str(target), "caption": caption, "control_path": str(source)})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "musubi"


def ai_toolkit(folder: Path) -> str:
    for row, caption in enumerate(CAPTIONS):
        image(folder / f"control/{row}.jpg", level(row, "source"))
        image(folder / f"images/{row}.jpg", level(row, "target"))
        (folder / f"images/{row}.txt").write_text(caption)
    (folder / "images/_latent_cache").mkdir()  # which ai-toolkit leaves there
    return "ai_toolkit"


def hugging_face(folder: Path) -> str:
    """The columns of InstructPix2Pix, in a parquet file."""
    folder.mkdir()
    rows = []
    for row, caption in enumerate(CAPTIONS):
        images = {}
        for column, side in (("original_image", "source"), ("edited_image", "target")):
            buffer = io.BytesIO()
            Image.fromarray(np.full((32, 48, 3), level(row, side), np.uint8)).save(buffer, "png")
            images[column] = {"bytes": buffer.getvalue(), "path": None}
        rows.append({**images, "edit_prompt": "make it bright", "edited_prompt": caption})
    table = datasets.Dataset.from_list(rows)
    for column in ("original_image", "edited_image"):
        table = table.cast_column(column, datasets.Image())
    table.to_parquet(folder / "train-00000-of-00001.parquet")
    return "datasets"


def videox_fun(folder: Path) -> str:
    """Clips, as in VideoX-Fun's documents, which keep a second list with sizes."""
    rows = []
    for row, caption in enumerate(CAPTIONS):
        clip(folder / f"train/{row}.mp4", level(row, "target"))
        clip(folder / f"control/{row}.mp4", level(row, "source"))
        paths = {"file_path": f"train/{row}.mp4", "control_file_path": f"control/{row}.mp4"}
        rows.append({**paths, "text": caption, "type": "video"})
    (folder / "metadata.json").write_text(json.dumps(rows))
    sized = [{**row, "width": 48, "height": 32} for row in rows]
    (folder / "metadata_add_width_height.json").write_text(json.dumps(sized))
    return "videox_fun"


FORMS: dict[str, Callable[[Path], str]] = {
    form.__name__: form for form in (own, folders, csv_list, musubi, ai_toolkit, hugging_face, videox_fun)
}
