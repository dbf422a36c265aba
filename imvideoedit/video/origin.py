"""What a photo's EXIF says of its origin: camera, date, author and place, from one picture into another."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from imvideoedit.video.images import exif_of
from imvideoedit.video.photos import is_heic
from imvideoedit.video.pictures import open_picture

# Maker, model, date, artist, copyright.
_TELLING = {0x010F, 0x0110, 0x0132, 0x013B, 0x8298}
_CAMERA, _PLACE = 0x8769, 0x8825  # tables of their own
# Of the old pixels or its file: sizes, colour space, the table of a maker, whose offsets hold there alone.
_OF_THE_FILE = {0x9101, 0x9102, 0x927C, 0xA001, 0xA002, 0xA003, 0xA005, 0xA500}
_MOST = 30_000  # bytes; a JPEG holds 64 KB, with our own texts


def tells_origin(path: Path) -> bool:
    """Whether an image's EXIF says its camera, date, place or author."""
    if is_heic(path):
        return False
    with open_picture(path) as image:
        return not (_TELLING | {_CAMERA, _PLACE}).isdisjoint(exif_of(image))


def origin_of(path: Path, output: Path) -> Image.Exif | None:
    """What of an image's EXIF the picture ``output`` can have; None where it says nothing, is damaged, or too much."""
    # Pillow writes no tables into a TIFF that libtiff compresses.
    if output.suffix.lower() in (".tif", ".tiff") or not tells_origin(path):
        return None
    try:
        with open_picture(path) as image:
            found = exif_of(image)
            kept = {tag: found[tag] for tag in _TELLING & found.keys()}
            there = [tag for tag in (_CAMERA, _PLACE) if tag in found]
            if not all(found.get_ifd(tag) for tag in there):  # Pillow reads a damaged table as an empty one
                return None
            tables = {tag: _table(found, tag) for tag in there}
        exif = Image.Exif()
        exif.update(kept | {tag: table for tag, table in tables.items() if table})
        return exif if _reads_back(exif, kept, tables) else None
    except Exception:  # Pillow raises nearly anything on damaged tables
        return None


def _table(exif: Image.Exif, tag: int) -> dict[int, Any]:
    return {key: value for key, value in exif.get_ifd(tag).items() if key not in _OF_THE_FILE}


def _reads_back(exif: Image.Exif, kept: dict[int, Any], tables: dict[int, dict[int, Any]]) -> bool:
    """Whether another reader finds all of it in a file."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
    with open_picture(file.getvalue()) as image:
        found = image.getexif()
        whole = all(found.get(tag) == value for tag, value in kept.items())
        return file.tell() < _MOST and whole and all(_table(found, tag) == table for tag, table in tables.items())
