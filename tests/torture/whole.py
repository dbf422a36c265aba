"""Whether files under their final names are whole, by reading them."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image
from safetensors.torch import load_file

from imvideoedit.video.reader import read_video


def _json(path: Path) -> None:
    json.loads(path.read_text())


def _lines(path: Path) -> None:
    for line in path.read_text().splitlines():
        json.loads(line)


def _text(path: Path) -> None:
    assert path.read_text().endswith("\n"), "no end of the last line"


def _page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>"), "no end of the page"


def _picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _archive(path: Path) -> None:
    assert zipfile.is_zipfile(path), "no directory at its end"


READERS: dict[str, Callable[[Path], object]] = {
    ".mp4": read_video,
    ".safetensors": load_file,
    ".parquet": pq.read_table,
    ".json": _json,
    ".jsonl": _lines,
    ".csv": _text,
    ".html": _page,
    ".png": _picture,
    ".jpg": _picture,
    ".ckpt": _archive,
}


def is_temporary(path: Path, out: Path) -> bool:
    """Whether a file has a name that says that it is not final, or lies in such a folder."""
    return any(part.startswith(".") for part in path.relative_to(out).parts)


def temporaries(out: Path) -> set[str]:
    """Names of all files and folders that are not final."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if is_temporary(path, out)}


def broken(out: Path) -> Iterator[str]:
    """A line for each file below a folder that has its final name and cannot be read."""
    for path in sorted(out.rglob("*")):
        reader = READERS.get(path.suffix)
        if not path.is_file() or is_temporary(path, out) or reader is None:
            continue
        try:
            reader(path)
        except Exception as error:
            yield f"{path.relative_to(out)} is half-written: {type(error).__name__}: {str(error)[:100]}"
