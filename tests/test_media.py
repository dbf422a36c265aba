"""Images, clips and folders of frames are read alike, from files and from bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.data.media import contents, is_clip, medium_shape, read_mask, read_medium
from tests.clips import flat_frames, levels_of, make_clip
from tests.odd_files import make_transparent_clip

LEVELS = [10, 60, 110, 160, 210]


def saved(tmp_path, name="clip.mp4"):
    return make_clip(tmp_path / name, flat_frames(LEVELS))


def png(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["file", "bytes", "folder"])
def test_a_clip_is_read_from_any_form(tmp_path, form):
    medium = saved(tmp_path)
    if form == "bytes":
        medium = saved(tmp_path, "clip.mkv").read_bytes()
    elif form == "folder":
        medium = tmp_path / "frames"
        medium.mkdir()
        (medium / ".hidden.png").write_bytes(b"")
        for number, frame in enumerate(flat_frames(LEVELS), start=8):  # 8, 9, 10, 11, 12
            Image.fromarray(frame).save(medium / f"frame{number}.png")
    assert is_clip(medium) and medium_shape(medium, "x") == (5, 32, 48)
    assert levels_of(read_medium(medium, "x")) == LEVELS
    assert levels_of(read_medium(medium, "x", 3)) == LEVELS[:3]
    with pytest.raises(UserError, match="row 4: source has 5 frames, but 9 are needed"):
        read_medium(medium, "row 4: source", 9)


def test_an_image_is_one_frame(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    for medium in (tmp_path / "a.png", png(pixels)):
        assert not is_clip(medium) and medium_shape(medium, "x") == (1, 6, 8)
        assert np.array_equal(read_medium(medium, "x"), pixels[None])
        assert b"".join(contents(medium)) == png(pixels)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for number, size in enumerate((8, 9)):
        Image.new("L", (size, 8)).save(tmp_path / f"mixed/{number}.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/0.png").symlink_to(tmp_path / "mixed/0.png")
    for medium, message in (
        (tmp_path / "bad.mp4", "row 1: source: cannot read .*bad.mp4"),
        (tmp_path / "gone.mp4", "row 1: source: there is no file .*gone.mp4"),
        (tmp_path / "gone.png", "row 1: source: there is no file .*gone.png"),
        (tmp_path / "empty", "row 1: source: .*empty holds no images"),
        (tmp_path / "mixed", "row 1: source has frames of several sizes"),
        (tmp_path / "linked", "row 1: source: .*leads out of its folder"),
        (b"nothing", "row 1: source: cannot read the image as an image"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            read_medium(medium, "row 1: source")


def test_black_clips_are_empty_masks_and_short_ones_are_refused(tmp_path):
    dark = flat_frames([0] * 3)
    dark[:, 3:9, 3:9] = 2  # what encoders make of black
    mask = make_clip(tmp_path / "m.mp4", dark)
    assert read_mask(mask, "x").shape == (3, 32, 48) and not read_mask(mask, "x").any()
    with pytest.raises(UserError, match="x has 3 frames, but 5 are needed"):
        read_mask(mask, "x", 5)


@pytest.mark.parametrize(("brightest", "limit"), [(2, 255), (127, 255), (1000, 65535)])
def test_a_mask_of_levels_that_are_not_white_is_refused(tmp_path, brightest, limit):
    """Such as a map of classes, which would be a mask of nothing."""
    values = np.zeros((32, 48), np.uint16 if limit > 255 else np.uint8)
    values[3:9, 3:9] = brightest
    (tmp_path / "frames").mkdir()
    for path in (tmp_path / "m.png", tmp_path / "frames/0.png"):
        Image.fromarray(values).save(path)
    masks = [tmp_path / "m.png"]
    if brightest == 127:
        masks += [tmp_path / "frames", make_clip(tmp_path / "m.mp4", np.repeat(values[None, ..., None], 3, 3))]
    for mask in masks:
        with pytest.raises(UserError, match=rf"^row 2: mask has nothing white, its brightest is \d+ of {limit}; save"):
            read_mask(mask, "row 2: mask")


def test_a_mask_with_transparency_is_refused():
    pixels = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(UserError, match="has transparency; save the mask as black and white"):
        read_mask(png(pixels), "row 0: mask")
    grey = np.array([[0, 100, 127, 128, 255]], np.uint8)
    assert read_mask(png(grey), "x").tolist() == [[[0, 0, 0, 255, 255]]]
    assert not read_mask(png(grey * 0), "x").any()


def test_of_masks_what_is_transparent_is_refused_and_what_only_could_be_is_read(tmp_path):
    """As masks of the command line are (tests/test_kinds.py, tests/test_masks.py)."""
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[:32, :, :3] = 0
    expected = pixels[..., 0]
    assert np.array_equal(read_mask(png(pixels), "x"), expected[None])
    (tmp_path / "m.png").write_bytes(png(pixels))
    assert np.array_equal(read_mask(tmp_path / "m.png", "x"), expected[None])
    pixels[0, 0, 3] = 254
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/0.png").write_bytes(png(pixels))
    clip = make_transparent_clip(tmp_path / "m.mov", pixels, 1)
    for mask in (png(pixels), tmp_path / "frames", clip, clip.read_bytes()):
        with pytest.raises(UserError, match="^row 3: mask.* has transparency; save the mask as black and white"):
            read_mask(mask, "row 3: mask")
