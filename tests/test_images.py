import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import image_size, load_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_path_bytes_and_an_opened_image_give_the_same_pixels(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    for image in (path, str(path), path.read_bytes(), Image.open(path)):
        assert np.array_equal(load_rgb(image), RGB)
        assert image_size(image) == (6, 10)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: np.rot90(x, 2)),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), exif=exif)
    assert np.array_equal(load_rgb(data), upright(RGB))
    assert image_size(data) == upright(RGB).shape[:2]


@pytest.mark.parametrize("where", ["nowhere", "before the pixels", "after them"])
def test_the_size_of_a_png_is_told_without_decoding_it(where, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(RGB), **({} if where == "nowhere" else {"exif": exif}))
    if where == "after them":
        place, last = data.index(b"eXIf") - 4, data.index(b"IEND") - 4
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        data = data[:place] + data[end:last] + data[place:end] + data[last:]
    upright = RGB.shape[:2] if where == "nowhere" else RGB.shape[1::-1]
    opened = Image.open(io.BytesIO(data))
    assert image_size(opened) == upright == load_rgb(opened).shape[:2]
    if where != "after them":
        monkeypatch.setattr(PngImageFile, "load", lambda image: pytest.fail("decoded"))
    assert image_size(data) == upright


def test_transparency_is_composited_on_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, :3] = (200, 100, 0)
    pixels[0, :, 3] = (0, 51, 255)
    blended = load_rgb(encoded(Image.fromarray(pixels, "RGBA")))[0].astype(int)
    exact = [[255] * 3, [244, 224, 204], [200, 100, 0]]
    assert np.abs(blended - exact).max() <= 1


def test_a_transparent_palette_colour_becomes_white():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert load_rgb(encoded(palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert load_rgb(encoded(palette, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        image = load_rgb(encoded(Image.fromarray(values), kind))
        assert image[0, :, 0].tolist() == [0, 1, 128, 255] and image.shape == (1, 4, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "P"])
def test_other_modes_become_rgb(mode):
    image = Image.new("RGB", (4, 3), "white").convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(load_rgb(data), np.full((3, 4, 3), 255, np.uint8))


def test_undecodable_files_are_refused_in_one_line(tmp_path):
    whole = encoded(Image.fromarray(np.tile(RGB, (30, 30, 1))))
    bad = {"empty.png": b"", "text.png": b"hello", "cut.png": whole[: len(whole) // 2]}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            load_rgb(tmp_path / name)
    with pytest.raises(UserError, match="no file .*gone.png"):
        load_rgb(tmp_path / "gone.png")
    with pytest.raises(UserError, match="row 3"):
        load_rgb(b"", name="row 3")


def test_float_images_and_bombs_are_refused(monkeypatch):
    with pytest.raises(UserError, match="float"):
        load_rgb(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    data = encoded(Image.new("RGB", (40, 30)))
    for limit in (1000, 500):  # Pillow warns above its limit and refuses above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for read in (load_rgb, image_size):
            with pytest.raises(UserError, match="pixels; scale it down"):
                read(data)


def test_a_png_that_claims_gigabytes_takes_only_the_memory_of_its_bytes(tmp_path):
    path = tmp_path / "claims.png"
    Image.new("RGB", (16, 12), (9, 8, 7)).save(path)
    good = path.read_bytes()
    place = good.index(b"IDAT") - 4
    path.write_bytes(good[:place] + (2**31 - 1).to_bytes(4, "big") + good[place + 4 :])
    tracemalloc.start()
    try:
        pixels = load_rgb(path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert (pixels == (9, 8, 7)).all()
