"""Frames of videos side by side, as images."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imvideoedit.common.files import replacing
from imvideoedit.video.pngs import write_picture

_GAP = 4
_LABEL_HEIGHT = 18


def side_by_side(*videos: np.ndarray) -> np.ndarray:
    """Concatenate videos ``[F, H, W, 3]`` along the width: ``[F, H, sum of W, 3]``.

    Raises:
        ValueError: they differ in frames or height.
    """
    if len({video.shape[:2] for video in videos}) != 1:
        raise ValueError(f"videos of unequal frames or heights: {[video.shape for video in videos]}")
    return np.concatenate(videos, axis=2)


def write_strip(path: Path | str, rows: dict[str, np.ndarray], columns: int = 6, scale: int = 2) -> None:
    """Write a PNG with one labelled row per video, of frames evenly spaced from the first to the last.

    Args:
        path: the PNG; appears only once complete.
        rows: label -> uint8 ``[F, H, W, 3]``; e.g. source, exact, edit.
        columns: the most frames shown of a video.
        scale: integer factor that each pixel is enlarged by.
    """
    drawn = [_row(label, video, columns, scale) for label, video in rows.items()]
    _write(path, [[row] for row in drawn])


def write_sheet(path: Path | str, cells: dict[str, np.ndarray], across: int = 2, columns: int = 2) -> None:
    """Write a PNG with labelled videos, ``across`` in a row, ``columns`` frames of each, enlarged twice."""
    drawn = [_row(label, video, columns, 2) for label, video in cells.items()]
    _write(path, [drawn[i : i + across] for i in range(0, len(drawn), across)])


def _write(path: Path | str, grid: list[list[Image.Image]]) -> None:
    """Paste images row by row, each row as high as its highest, with gaps between them."""
    wide = max(sum(cell.width + 2 * _GAP for cell in row) - 2 * _GAP for row in grid)
    sheet = Image.new("RGB", (wide, sum(max(cell.height for cell in row) for row in grid)), "white")
    top = 0
    for row in grid:
        left = 0
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + 2 * _GAP
        top += max(cell.height for cell in row)
    with replacing(path) as temporary:
        write_picture(sheet, temporary, "PNG")


def _row(label: str, video_FHWC: np.ndarray, columns: int, scale: int) -> Image.Image:
    count, height, width = video_FHWC.shape[:3]
    picked = np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(int))
    row = Image.new(
        "RGB", (len(picked) * (width * scale + _GAP) - _GAP, _LABEL_HEIGHT + height * scale + _GAP), "white"
    )
    ImageDraw.Draw(row).text((2, 2), label, fill="black", font=ImageFont.load_default(size=12))
    for column, index in enumerate(picked):
        frame = Image.fromarray(video_FHWC[index]).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        row.paste(frame, (column * (width * scale + _GAP), _LABEL_HEIGHT))
    return row
