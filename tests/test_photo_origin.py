"""What a photo's EXIF says of its origin is not in an edit, and that is said."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import Note
from imvideoedit.video.reader import Clip, VideoWriter


def notes(source: Path, output: Path) -> list[str]:
    clip = Clip(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with VideoWriter(output, clip.info, source=source) as writer:
            for frame_HWC in clip:
                writer.add(frame_HWC)
    return [str(each.message) for each in caught if each.category is Note]


@pytest.mark.parametrize(("suffix", "tag"), [(".jpg", 0x010F), (".png", 0x8298), (".webp", 0x0132), (".tif", 0x013B)])
def test_a_photo_that_says_its_origin_loses_it_with_one_note(tmp_path, suffix, tag):
    exif = Image.Exif()
    exif[tag] = "2024:01:02 03:04:05"
    source = tmp_path / f"a{suffix}"
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(source, exif=exif)
    assert notes(source, tmp_path / f"b{suffix}") == [
        f"{tmp_path / f'b{suffix}'} does not keep of the source: EXIF (camera, date, place)"
    ]


def test_an_orientation_alone_is_applied_and_nothing_is_lost(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert notes(tmp_path / "a.jpg", tmp_path / "b.jpg") == []
    assert Image.open(tmp_path / "b.jpg").size == (32, 48)
