"""What a file holds is decided by its content, and what an output can hold is checked before anything is written."""

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import image_size, load_rgb
from imvideoedit.video.kinds import kind_of
from imvideoedit.video.masks import open_mask
from imvideoedit.video.reader import Clip, VideoWriter, read_metadata, write_video
from tests.clips import flat_frames, make_clip
from tests.odd_files import display_p3, make_animation, make_heic, make_transparent_clip

LEVELS = [20, 80, 140, 200]
NOISE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".avif"])
def test_an_animated_picture_is_all_its_frames_and_no_still(tmp_path, suffix):
    path = make_animation(tmp_path / f"a{suffix}", list(flat_frames(LEVELS)), 40)
    clip = Clip(path)
    assert kind_of(path) == "animation" and len(clip) == 4 and clip.info.fps == 25
    assert [round(frame.mean(), -1) for frame in clip] == LEVELS
    assert [round(frame.mean(), -1) for frame in Clip(path, start=0.08)] == LEVELS[2:]
    for read in (load_rgb, image_size):
        with pytest.raises(UserError, match="animation of 4 pictures, where one is needed"):
            read(path)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".avif", ".jpg", ".bmp", ".tiff", ".jp2", ".ppm"])
def test_a_picture_is_one_frame_whatever_its_name(tmp_path, suffix):
    Image.fromarray(flat_frames([80])[0]).save(tmp_path / f"a{suffix}")
    path = (tmp_path / f"a{suffix}").rename(tmp_path / "named.mp4")
    assert kind_of(path) == "still" and [round(frame.mean(), -1) for frame in Clip(path)] == [80]


def test_pages_are_refused_but_previews_do_not_count(tmp_path):
    first, second = (Image.fromarray(frame) for frame in flat_frames([20, 80]))
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=[second])
    for read in (load_rgb, image_size, Clip):
        with pytest.raises(UserError, match="has 2 pages, where one picture is needed"):
            read(tmp_path / "pages.tiff")
    second.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "preview.tiff", save_all=True, append_images=[second])
    assert Image.open(tmp_path / "preview.tiff").n_frames == 2
    assert load_rgb(tmp_path / "preview.tiff")[0, 0, 0] == 20 and len(Clip(tmp_path / "preview.tiff")) == 1


def test_a_series_of_jpegs_is_a_video(tmp_path):
    make_clip(tmp_path / "a.mkv", flat_frames(LEVELS), codec="mjpeg", pix_fmt="yuvj420p")
    with open(tmp_path / "a.mjpeg", "wb") as file:
        for frame in flat_frames(LEVELS):
            Image.fromarray(frame).save(file, "JPEG")
    assert kind_of(tmp_path / "a.mjpeg") == "video" and len(Clip(tmp_path / "a.mjpeg")) == 4


def test_a_heic_photo_is_read_whole_or_refused(tmp_path):
    tiles = list(flat_frames(LEVELS, 64, 64))
    one = make_heic(tmp_path / "one.heic", tiles[1:2])
    assert kind_of(one) == "still" and image_size(one) == (64, 64)
    assert [round(frame.mean(), -1) for frame in Clip(one)] == [80] and round(load_rgb(one).mean(), -1) == 80
    tiled = make_heic(tmp_path / "tiled.heic", tiles, columns=2)
    for read in (load_rgb, image_size, Clip):
        with pytest.raises(UserError, match="made of tiles, which cannot be read; convert it to PNG or JPEG"):
            read(tiled)


@pytest.mark.parametrize(
    ("suffix", "kind", "exact"),
    [(".png", "PNG", True), (".jpg", "JPEG", False), (".JPEG", "JPEG", False), (".webp", "WEBP", True)]
    + [(".tif", "TIFF", True), (".tiff", "TIFF", True)],
)
def test_a_picture_is_of_the_format_its_name_says_and_keeps_its_texts(tmp_path, suffix, kind, exact):
    path, texts = tmp_path / f"a{suffix}", {"imvideoedit": '{"seed": 1}', "comment": "schön"}
    write_video(path, [NOISE], fps=1, metadata=texts)
    with Image.open(path) as image:
        assert image.format == kind
        # 4:4:4 is one sample of each colour for each pixel
        assert kind != "JPEG" or [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    assert np.array_equal(load_rgb(path), NOISE) == exact
    assert np.abs(load_rgb(path).astype(int) - NOISE).mean() < 4
    assert texts.items() <= read_metadata(path).items()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_frames_that_a_picture_cannot_hold_are_refused_before_anything_is_written(tmp_path, suffix):
    clip = Clip(make_clip(tmp_path / "a.mp4", flat_frames(LEVELS)))
    with pytest.raises(UserError, match="can hold one picture, not 4 frames; name it .mp4"):
        VideoWriter(tmp_path / f"b{suffix}", clip.info)
    with pytest.raises(UserError, match="can hold one picture, not 2 frames"):
        write_video(tmp_path / f"b{suffix}", flat_frames(LEVELS), fps=10)
    with pytest.raises(UserError, match="is a picture, which has no codec"):
        VideoWriter(tmp_path / f"b{suffix}", fps=1, codec="h264")
    assert not list(tmp_path.glob("*b*"))
    one = Clip(clip.path, end=0.04)
    write_video(tmp_path / f"b{suffix}", one, like=one.info)
    assert len(Clip(tmp_path / f"b{suffix}")) == 1


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.heic", "a.jxl", "a"])
def test_a_name_that_cannot_be_written_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match="must end in .mp4, .mov, .mkv or .webm, of a picture in .png, .jpg"):
        VideoWriter(tmp_path / name, fps=1)


def test_sides_that_a_format_cannot_hold_are_refused(tmp_path):
    with pytest.raises(UserError, match="at most 16383 pixels; name .* .png"):
        write_video(tmp_path / "a.webp", [np.zeros((2, 16_384, 3), np.uint8)], fps=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_is_converted_to_srgb(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (30, 200, 60))
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(tmp_path / "p3.png", icc_profile=display_p3())
    # Display P3's primaries to linear sRGB: the red channel falls below 0, which is clipped.
    assert np.abs(load_rgb(tmp_path / "p3.png")[4, 4].astype(int) - (0, 204, 13)).max() <= 2


def test_a_profile_that_is_srgb_or_none_of_the_image_changes_no_bit(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        Image.fromarray(NOISE).save(tmp_path / "a.png", icc_profile=profile)
        assert np.array_equal(load_rgb(tmp_path / "a.png"), NOISE)


@pytest.mark.parametrize(
    "name", ["a.mov", "a.webm", "a.png", "a.webp", "animated.png", "animated.gif", "animated.webp"]
)
def test_what_is_transparent_is_white_in_every_file(tmp_path, name):
    frame = np.zeros((64, 64, 4), np.uint8)
    frame[...] = (0, 255, 0, 0)
    frame[16:48, 16:48] = (200, 30, 30, 255)
    path = tmp_path / name
    if name.startswith("animated"):
        other = frame.copy()
        other[20:24, 20:24, 0] = 90
        make_animation(path, [frame, other])
    elif path.suffix in (".png", ".webp"):
        Image.fromarray(frame).save(path, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    else:
        make_transparent_clip(path, frame)
    clip = Clip(path)
    assert clip.info.alpha
    for rgb in clip:
        assert rgb[4, 4].min() > 250 and np.abs(rgb[40, 40].astype(int) - (200, 30, 30)).max() < 8
    with pytest.raises(UserError, match="transparen"):
        open_mask(path, clip)


def test_an_opaque_gif_is_a_mask_still(tmp_path):
    mask = make_animation(tmp_path / "mask.gif", list(flat_frames([0, 255])))
    source = Clip(make_clip(tmp_path / "a.mp4", flat_frames([20, 80])))
    assert [int(frame.max()) for frame in open_mask(mask, source)()] == [0, 255]
