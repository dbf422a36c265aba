"""Masks of any size, length, value range and kind of file, and how an edit fades out around them."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.masks import binary, box_mask, feathered, feathered_frames, list_images, nearest, open_mask
from imvideoedit.video.reader import Clip, write_video

HEIGHT, WIDTH, FRAMES = 24, 40, 6
INSIDE = arrays.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a video of 6 frames, a second long."""
    folder = tmp_path_factory.mktemp("masks")
    write_video(folder / "source.mp4", np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8), fps=FRAMES)
    return folder


def squares(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """White squares, further right in each frame, ``[F, H, W]``."""
    masks = np.zeros((frames, height, width), np.uint8)
    for n in range(frames):
        masks[n, height // 4 : height // 2, 3 * n : 3 * n + 8] = 255
    return masks


def coloured(masks_FHW: np.ndarray) -> np.ndarray:
    return np.repeat(masks_FHW[..., None], 3, axis=-1)


def read(given, source: Clip) -> np.ndarray:
    return np.stack(list(open_mask(given, source)()))


def save(path: Path, values: np.ndarray, **how) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path, **how)
    return path


@given(inside=INSIDE, peak=st.integers(1, 255), low=st.floats(0, 0.49), kind=st.sampled_from(["uint8", "float32"]))
def test_half_of_the_range_decides_whatever_the_range_is(inside, peak, low, kind):
    mask = np.where(inside, peak, math.floor(low * peak)).astype(kind)
    assert np.array_equal(binary(mask, float(mask.max())) == 255, inside if inside.any() else mask > mask.max() / 2)
    assert np.array_equal(binary(inside, float(inside.max())) == 255, inside)


@given(inside=INSIDE, times=st.integers(1, 4))
def test_a_mask_at_another_size_keeps_its_pixels(inside, times):
    larger = nearest(inside, (inside.shape[0] * times, inside.shape[1] * times))
    assert np.array_equal(larger, inside.repeat(times, 0).repeat(times, 1))
    assert np.array_equal(nearest(larger, inside.shape), inside)


@settings(max_examples=60, deadline=None)
@given(inside=INSIDE, feather=st.floats(0, 12))
def test_the_edit_fades_out_by_the_distance_to_the_mask(inside, feather):
    """Against all distances, measured one by one."""
    share = feathered(inside.astype(np.uint8) * 255, feather)
    assert share.dtype == np.float32 and share.shape == inside.shape
    assert (share[inside] == 1).all()
    rows, columns = np.nonzero(inside)
    for place in np.ndindex(inside.shape):
        far = math.sqrt(((rows - place[0]) ** 2 + (columns - place[1]) ** 2).min()) if inside.any() else math.inf
        if far > 0:
            assert share[place] == (0 if far >= feather else pytest.approx(1 - smooth(far / feather), abs=1e-5))


def smooth(t: float) -> float:
    return t * t * (3 - 2 * t)


def test_a_still_mask_is_feathered_once(monkeypatch):
    calls = []
    monkeypatch.setattr("imvideoedit.video.masks.feathered", lambda mask, feather: calls.append(1) or mask)
    first, other = squares(2)
    assert len(list(feathered_frames([first, first.copy(), other, other], first.shape, 3))) == 4 and len(calls) == 2


@given(st.tuples(*[st.integers(0, 50)] * 4))
def test_a_box_is_in_the_frame_or_refused(box):
    left, top, wide, tall = box
    text = "box:" + ",".join(map(str, box))
    if wide and tall and left + wide <= WIDTH and top + tall <= HEIGHT:
        mask = box_mask(text, HEIGHT, WIDTH)
        assert mask[top : top + tall, left : left + wide].all() and (mask > 0).sum() == wide * tall
    else:
        with pytest.raises(UserError, match=r"empty|out of the video, which is 40x24"):
            box_mask(text, HEIGHT, WIDTH)


@pytest.mark.parametrize("text", ["box:", "box:1,2,3", "box:1,2,3,4,5", "box:-1,0,2,2", "box:0.5,0,2,2", "box:a,b,c,d"])
def test_what_is_no_box_is_refused(text):
    with pytest.raises(UserError, match="whole pixels"):
        box_mask(text, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("grey.png", squares(1)[0]),
        ("ones.png", squares(1)[0] // 255),
        ("dim.png", squares(1)[0] // 5),
        ("two.png", squares(1)[0] > 0),
        ("wide.png", squares(1)[0].astype(np.uint16) * 257),
        ("red.png", coloured(squares(1)[0]) * np.array([1, 0, 0], np.uint8)),
        ("opaque.png", np.concatenate([coloured(squares(1)[0]), np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)),
        ("lossy.jpg", coloured(squares(1)[0])),
        ("lossless.webp", coloured(squares(1)[0])),
    ],
)
def test_a_still_of_any_kind_is_one_mask(folder, name, values):
    mask = read(save(folder / name, values, quality=95), Clip(folder / "source.mp4"))
    assert mask.shape == (1, HEIGHT, WIDTH) and mask.dtype == np.uint8
    assert np.array_equal(mask, squares(1)) or (name.startswith("loss") and (mask != squares(1)).mean() < 0.01)


def test_a_palette_counts_by_its_colours(folder):
    image = Image.fromarray(squares(1)[0] // 255, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(folder / "palette.png")
    assert np.array_equal(read(folder / "palette.png", Clip(folder / "source.mp4")), squares(1))


def test_a_mask_video_and_a_folder_have_a_frame_for_each(folder):
    source = Clip(folder / "source.mp4")
    write_video(folder / "masks.mkv", coloured(squares()), fps=30, codec="lossless")  # the rate may be another
    assert np.array_equal(read(folder / "masks.mkv", source), squares())
    for n, mask in enumerate(squares()):
        save(folder / "frames" / f"mask_{n + 7}.png", mask)  # up to 12: by their numbers, not by their letters
    (folder / "frames" / "notes.txt").touch()
    assert [path.name for path in list_images(folder / "frames")][:4] == [f"mask_{n}.png" for n in (7, 8, 9, 10)]
    assert np.array_equal(read(folder / "frames", source), squares())
    opened = open_mask(folder / "frames", source)
    assert np.array_equal(np.stack(list(opened())), np.stack(list(opened())))


@pytest.mark.parametrize("kind", ["video", "folder"])
@pytest.mark.parametrize(
    ("cut", "shown"),
    [
        ({"start": 0.5}, [3, 4, 5]),
        ({"end": 0.4}, [0, 1, 2]),
        ({"start": 0.3, "end": 0.7}, [2, 3, 4]),
        ({"fps": 3}, None),
        ({"fps": 16, "start": 0.5}, None),
    ],
)
def test_a_mask_is_cut_and_resampled_with_the_source_or_is_as_long_as_the_part(folder, tmp_path, kind, cut, shown):
    """Which frames the source shows is read off a source whose grey level is the frame's number."""
    numbered = np.broadcast_to(20 * np.arange(FRAMES, dtype=np.uint8)[:, None, None, None], (FRAMES, HEIGHT, WIDTH, 3))
    write_video(tmp_path / "source.mkv", numbered, fps=FRAMES, codec="lossless")
    source = Clip(tmp_path / "source.mkv", **cut)
    places = [int(frame[0, 0, 0]) // 20 for frame in source]
    assert shown is None or places == shown
    for name, masks in {"all": squares(), "part": squares()[places]}.items():
        if kind == "video":
            path = tmp_path / f"{name}.mkv"
            write_video(path, coloured(masks), fps=25, codec="lossless")
        else:
            path = tmp_path / name
            for n, mask in enumerate(masks):
                save(path / f"{n}.png", mask)
        assert np.array_equal(read(path, source), squares()[places]), name


@pytest.mark.parametrize("count", [1, FRAMES - 1, FRAMES + 1])
def test_a_mask_of_another_length_is_refused(folder, tmp_path, count):
    write_video(tmp_path / "masks.mkv", coloured(squares(count)), fps=FRAMES, codec="lossless")
    with pytest.raises(UserError, match=rf"masks.mkv has {count} frames, but .*source.mp4 has {FRAMES}; give one for"):
        open_mask(tmp_path / "masks.mkv", Clip(folder / "source.mp4"))
    for n in range(count):
        save(tmp_path / "frames" / f"{n}.png", squares()[0])
    with pytest.raises(UserError, match=rf"has {count} frames, but .* has {FRAMES}, of which 3 are edited; give one"):
        open_mask(tmp_path / "frames", Clip(folder / "source.mp4", start=0.5))


@pytest.mark.parametrize(
    ("height", "width", "fits"), [(48, 80, True), (12, 20, True), (121, 200, True), (40, 24, False)]
)
def test_a_mask_of_another_size_needs_the_same_aspect(folder, tmp_path, height, width, fits):
    save(tmp_path / "mask.png", squares(1, height, width)[0])
    if fits:
        assert read(tmp_path / "mask.png", Clip(folder / "source.mp4")).shape == (1, height, width)
    else:
        with pytest.raises(UserError, match=f"{width}x{height}, but the source is 40x24; crop it"):
            open_mask(tmp_path / "mask.png", Clip(folder / "source.mp4"))


def test_masks_that_mean_nothing_or_two_things_are_refused(folder, tmp_path):
    source = Clip(folder / "source.mp4")
    clear = np.concatenate([coloured(squares(1)[0]), squares(1)[0][..., None]], axis=2)
    with pytest.raises(UserError, match="transparent"):
        open_mask(save(tmp_path / "clear.png", clear), source)
    with pytest.raises(UserError, match="black in every frame"):
        open_mask(save(tmp_path / "black.png", np.zeros((HEIGHT, WIDTH), np.uint8)), source)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no images in"):
        open_mask(tmp_path / "none", source)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text.png"):
        open_mask(tmp_path / "text.png", source)
    for n, side in enumerate((1, 2, 1, 1, 1, 1)):
        save(tmp_path / "sizes" / f"{n}.png", np.full((HEIGHT * side, WIDTH * side), 255, np.uint8))
    with pytest.raises(UserError, match=r"differ in size, such as 40x24 and 80x48 \(1.png\)"):
        open_mask(tmp_path / "sizes", source)


def test_a_part_whose_masks_are_black_is_refused_although_others_are_not(folder, tmp_path):
    masks = squares()
    masks[3:] = 0
    write_video(tmp_path / "masks.mkv", coloured(masks), fps=FRAMES, codec="lossless")
    open_mask(tmp_path / "masks.mkv", Clip(folder / "source.mp4"))
    with pytest.raises(UserError, match="black in every frame"):
        open_mask(tmp_path / "masks.mkv", Clip(folder / "source.mp4", start=0.5))
