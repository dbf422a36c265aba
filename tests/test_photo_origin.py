"""What a photo's EXIF says of its origin is in an edit that can hold it; where it is not, that is said."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import Note
from imvideoedit.video.reader import Clip, VideoWriter, read_metadata


def notes(source: Path, output: Path) -> list[str]:
    clip = Clip(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with VideoWriter(output, clip.info, source=source, metadata={"imvideoedit": "it"}) as writer:
            for frame_HWC in clip:
                writer.add(frame_HWC)
    return [str(each.message) for each in caught if each.category is Note]


MAKER, DATE, CAMERA, PLACE = 0x010F, 0x0132, 0x8769, 0x8825
EXPOSED, LENS, MAKER_NOTE, WIDTH, LATITUDE = 0x829A, 0xA434, 0x927C, 0xA002, 2


def photo(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112], exif[MAKER], exif[DATE] = 6, "Angstrom", "2024:01:02 03:04:05"
    exif[CAMERA] = {EXPOSED: 0.004, LENS: "50 mm", MAKER_NOTE: b"x" * 99, WIDTH: 48}
    exif[PLACE] = {1: "N", LATITUDE: (48.0, 8.0, 1.5)}
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(path, exif=exif.tobytes())
    return path


@pytest.mark.parametrize("read", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("written", [".jpg", ".png", ".webp"])
def test_a_photo_keeps_its_origin_and_nothing_of_its_old_pixels(tmp_path, read, written):
    output = tmp_path / f"b{written}"
    assert notes(photo(tmp_path / f"a{read}"), output) == []
    with Image.open(output) as image:
        exif = image.getexif()
        assert image.size == (32, 48) and exif.get(0x0112, 1) == 1
        assert (exif[MAKER], exif[DATE]) == ("Angstrom", "2024:01:02 03:04:05")
        camera, place = exif.get_ifd(CAMERA), exif.get_ifd(PLACE)
    assert camera[EXPOSED] == pytest.approx(0.004) and camera[LENS] == "50 mm" and place[LATITUDE] == (48.0, 8.0, 1.5)
    assert not {MAKER_NOTE, WIDTH} & camera.keys()
    assert read_metadata(output) == {"imvideoedit": "it"}


@pytest.mark.parametrize("name", ["b.mp4", "b.tiff"])
def test_what_cannot_say_a_photos_origin_names_it(tmp_path, name):
    output = tmp_path / name
    assert notes(photo(tmp_path / "a.jpg"), output) == [
        f"{output} does not keep of the source: EXIF (camera, date, place)"
    ]


@pytest.mark.parametrize("damage", ["type", "count", "length"])
def test_what_no_reader_takes_or_no_picture_holds_is_named(tmp_path, damage):
    data = bytearray(photo(tmp_path / "a.jpg").read_bytes())
    entry = data.index(EXPOSED.to_bytes(2) + b"\x00\x0c")  # tag and type, then four bytes of count
    if damage == "type":
        data[entry + 3] = 0x63
    elif damage == "count":
        data[entry + 4 : entry + 8] = b"\x00\xff\xff\xff"
    (tmp_path / "a.jpg").write_bytes(data)
    if damage == "length":
        exif = Image.Exif()
        exif[CAMERA] = {0x9286: b"x" * 40_000}
        Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    told = notes(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        camera = image.getexif().get_ifd(CAMERA)
    if damage == "type":  # an entry of a type that does not exist is none
        assert told == [] and camera[LENS] == "50 mm" and EXPOSED not in camera
    else:
        assert len(told) == 1 and "EXIF" in told[0] and camera == {}


def test_an_orientation_alone_is_applied_and_nothing_is_lost(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert notes(tmp_path / "a.jpg", tmp_path / "b.jpg") == []
    assert Image.open(tmp_path / "b.jpg").size == (32, 48)
