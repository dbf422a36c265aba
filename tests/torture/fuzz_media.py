"""Mutants of videos, pictures, animations and masks; what is accepted must be as many frames of one size as it says."""

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import image_size, load_rgb
from imvideoedit.video.kinds import kind_of
from imvideoedit.video.masks import feathered_frames, open_mask
from imvideoedit.video.reader import Clip, read_metadata
from tests.clips import flat_frames, make_clip
from tests.odd_files import display_p3, make_animation, make_heic, make_rich_clip, make_transparent_clip
from tests.torture.box_mutants import damaged_structure
from tests.torture.fuzzing import Target, fuzz
from tests.torture.mutants import damaged_bytes
from tests.torture.table import Row

MOST_FRAMES = 400  # that are decoded of a clip that says it has more
VIDEOS = {
    ".mp4": {"sounds": ("aac",), "options": {"bf": "2"}},
    ".mov": {"codec": "libx264", "rotation": 90, "tags": (2, 1, 1, 1)},
    ".mkv": {"codec": "libx264"},
    ".webm": {"codec": "libvpx-vp9"},
    ".ts": {"codec": "mpeg2video"},
    ".avi": {"codec": "mpeg4"},
}


def run(scale: float, planted: bool) -> Iterator[Row]:
    """Planted: what decoders raise on damaged pictures passes."""
    with tempfile.TemporaryDirectory() as work:
        made = [*_videos(Path(work)), *_pictures(Path(work)), *_masks(Path(work))]
        if not planted:
            yield from fuzz("fuzz_media", made, scale)
            return
        with mock.patch("imvideoedit.video.images.Exception", _NoError, create=True):
            yield from fuzz("fuzz_media", [each for each in made if each.name == "PNG"], max(scale, 0.1))


class _NoError(BaseException):
    """Nothing raises it."""


def _target(name: str, count: int, file: str, seeds: list[bytes], check: Callable[[Path], None]) -> Target:
    return Target(name, count, file, seeds, damaged_structure, check, guided=False, seconds=20.0)


def _videos(work: Path) -> Iterator[Target]:
    frames = flat_frames([20, 60, 100, 140, 180, 220, 80, 40])
    for ending, options in VIDEOS.items():
        path = make_clip(work / f"clip{ending}", frames, **options)  # type: ignore[arg-type]
        yield _target(f"videos {ending}", 500, f"x{ending}", [path.read_bytes()], video)
        yield Target(f"videos {ending}, bytes", 250, f"x{ending}", [path.read_bytes()], damaged_bytes, video,
                     guided=False, seconds=20.0)  # fmt: skip
    rich = make_rich_clip(work / "rich.mkv", flat_frames([50] * 20))
    yield _target("videos with all that is carried", 300, "x.mkv", [rich.read_bytes()], video)
    picture = np.dstack([flat_frames([90])[0], np.full((32, 48), 128, np.uint8)])
    for ending in (".mov", ".webm"):
        path = make_transparent_clip(work / f"alpha{ending}", picture)
        yield _target(f"transparent {ending}", 200, f"x{ending}", [path.read_bytes()], video)


def _pictures(work: Path) -> Iterator[Target]:
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    forms = {
        "PNG": [_picture(colours, "PNG"), _picture(colours, "PNG", icc_profile=display_p3(), exif=exif)],
        "JPEG": [_picture(colours, "JPEG", exif=exif), _picture(colours, "JPEG", icc_profile=display_p3())],
        "WebP": [_picture(colours, "WEBP", lossless=True), _picture(colours, "WEBP", exif=exif)],
        "GIF": [_picture(colours, "GIF")],
        "TIFF": [_picture(colours, "TIFF"), _picture(colours, "TIFF", compression="tiff_lzw")],
        "AVIF": [_picture(colours, "AVIF")],
        "BMP": [_picture(colours, "BMP")],
        "16 bit PNG": [_picture(colours[..., 0].astype(np.uint16) * 257, "PNG")],
    }
    for name, seeds in forms.items():
        yield _target(name, 400, f"x.{name.split()[-1].lower()}", seeds, picture)
    heic = make_heic(work / "x.heic", [np.full((64, 64, 3), 50, np.uint8)])
    yield _target("HEIC", 300, "x.heic", [heic.read_bytes()], picture)
    moving = [colours, colours[::-1], colours[:, ::-1]]
    for ending in (".png", ".gif", ".webp", ".avif"):
        path = make_animation(work / f"moving{ending}", moving)
        yield _target(f"animations {ending}", 300, f"x{ending}", [path.read_bytes()], video)


def _masks(work: Path) -> Iterator[Target]:
    make_clip(work / "source.mp4", flat_frames([50] * 4))
    white = np.zeros((32, 48), np.uint8)
    white[8:24, 8:24] = 255
    folder = work / "masks"
    folder.mkdir()
    (work / "source.mp4").rename(folder / "source.mp4")
    yield Target("masks", 400, "x.png", [_picture(white, "PNG")], damaged_structure, mask, folder, guided=False)


def _picture(pixels: np.ndarray, form: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def video(path: Path) -> None:
    """Read all of a clip, part of it, and its texts."""
    clip = Clip(path)
    _consistent(clip)
    for name, text in read_metadata(path).items():
        (name + text).encode()
    length = clip.info.timing.duration if hasattr(clip.info.timing, "duration") else None
    assert length is None or 0 < float(length) < 1e12, f"a clip of {length} s"
    if len(clip) > 1:
        try:
            part = Clip(path, fps=5)
        except UserError:
            return
        if len(part) <= MOST_FRAMES:
            _consistent(part)


def _consistent(clip: Clip) -> None:
    size = clip.info.height, clip.info.width, 3
    found = 0
    for found, frame in enumerate(clip, 1):
        assert frame.shape == size and frame.dtype == np.uint8, f"{frame.shape} in a clip of {size}"
        if found == MOST_FRAMES:
            return
    assert found == len(clip) == clip.info.frames, f"{found} frames of a clip of {len(clip)}"


def picture(path: Path) -> None:
    """Read a picture by path, by bytes, and its size alone."""
    if kind_of(path) != "still":
        video(path)
        return
    pixels = load_rgb(path)
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8 and pixels.size
    assert image_size(path) == pixels.shape[:2], f"{image_size(path)} for a picture of {pixels.shape}"
    clip = Clip(path)
    assert len(clip) == 1 and np.array_equal(next(iter(clip)), pixels)


def mask(path: Path) -> None:
    """Read a mask for a clip."""
    clip = Clip(path.parent / "source.mp4")
    frames = list(open_mask(path, clip)())
    values = set(np.unique(np.stack(frames)))
    assert values <= {0, 255} and 255 in values, f"a mask of {values}"
    size = clip.info.height, clip.info.width
    for share in feathered_frames(frames, size, 2.0):
        assert share.shape == size and np.isfinite(share).all() and 0 <= share.min() <= share.max() <= 1
