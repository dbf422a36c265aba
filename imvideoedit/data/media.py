"""The media of a training row: an image or a clip, as a file, its bytes, or a folder of frames. Imports no torch.

Shapes: F frames, H W pixels.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import has_alpha, image_size, load_rgb
from imvideoedit.video.kinds import MEDIA, PICTURES, VIDEOS
from imvideoedit.video.pictures import open_picture
from imvideoedit.video.reader import Clip

Medium = Path | bytes
Shape = tuple[int, int, int]
"""(frames, height, width)."""

CHUNK = 2**22  # bytes read at a time
NOISE = 16  # levels that an encoder may leave of black
# Of masks: programs differ in what it means.
_TRANSPARENT = "has transparency; save the mask as black and white"


def is_medium(name: str) -> bool:
    """Whether a file is one of those that count as images or clips, by its ending."""
    return name.lower().endswith(MEDIA)


def is_clip(medium: Medium) -> bool:
    """Whether it is a clip: a folder, a file that ends as videos do, or bytes of a video file."""
    if isinstance(medium, Path):
        return medium.suffix.lower() in VIDEOS or medium.is_dir()
    try:
        open_picture(medium)
        return False
    except (OSError, ValueError, Image.DecompressionBombError):
        return _is_video(medium)


def medium_shape(medium: Medium, label: str) -> Shape:
    """Frames, height and width as the headers say them; an image has one frame.

    Raises:
        UserError: it is missing or unreadable; begins with ``label``.
    """
    with _errors(label):
        if not is_clip(medium):
            return (1, *image_size(medium))
        if isinstance(medium, Path) and medium.is_dir():
            files = frame_files(medium)
            return (len(files), *image_size(files[0]))
        with _as_file(medium) as path:
            clip = Clip(path)
            return len(clip), clip.info.height, clip.info.width


def read_medium(medium: Medium, label: str, frames: int | None = None) -> np.ndarray:
    """The first ``frames`` frames, or all: uint8 ``[F, H, W, 3]``; an image has one.

    Raises:
        UserError: it cannot be decoded, has fewer frames, or frames of several sizes; begins with ``label``.
    """
    with _errors(label):
        if not is_clip(medium):
            video = [load_rgb(medium)]
        elif isinstance(medium, Path) and medium.is_dir():
            video = [load_rgb(path) for path in frame_files(medium)[:frames]]
        else:
            with _as_file(medium) as path:
                video = list(islice(Clip(path), frames))
    if frames is not None and len(video) < frames:
        raise UserError(f"{label} has {len(video)} frames, but {frames} are needed; give a longer clip")
    if len({frame.shape for frame in video}) > 1:
        raise UserError(f"{label} has frames of several sizes; bring them to one")
    return np.stack(video)


def read_mask(medium: Medium, label: str, frames: int | None = None) -> np.ndarray:
    """The first ``frames`` frames of a mask, or all: uint8 ``[F, H, W]``, 255 where it is white and else 0.

    Values may range to 1, 255 or 65535; from half of that they are white. A still mask has one frame.

    Raises:
        UserError: as :func:`read_medium`; the mask has transparency; it has other levels, none of them white.
    """
    if not is_clip(medium):
        with _errors(label):
            values = _levels(medium)[None]
    elif isinstance(medium, Path) and medium.is_dir():
        with _errors(label):
            stills = [_levels(path) for path in frame_files(medium)[:frames]]
        if len({still.shape for still in stills}) > 1:
            raise UserError(f"{label} has frames of several sizes; bring them to one")
        values = np.stack(stills)
    else:
        with _errors(label), _as_file(medium) as path:
            if Clip(path).info.alpha:
                raise UserError(f"the clip {_TRANSPARENT}")
        # An encoder's noise around black must not be taken for a mask of zeros and ones.
        values = np.maximum(read_medium(medium, label, frames).max(-1), 2)
    if frames is not None and is_clip(medium) and len(values) < frames:
        raise UserError(f"{label} has {len(values)} frames, but {frames} are needed; give a longer one or a still mask")
    highest = int(values.max())
    limit = 1 if highest <= 1 else 255 if highest <= 255 else 65535
    black = NOISE if is_clip(medium) else 1
    if black < highest <= limit / 2:
        raise UserError(f"{label} has nothing white, its brightest is {highest} of {limit}; save it as black and white")
    return np.where(values * 2.0 > limit, 255, 0).astype(np.uint8)


def _levels(still: Medium) -> np.ndarray:
    """Brightness ``[H, W]`` of a still mask, in its own range."""
    if has_alpha(still):
        raise UserError(f"{still if isinstance(still, Path) else 'the image'} {_TRANSPARENT}")
    with contextlib.suppress(OSError):  # load_rgb says what is wrong
        image = open_picture(still)
        if image.mode.startswith("I"):
            return np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)
    return load_rgb(still).max(-1)


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder of frames, by the numbers in their names.

    Raises:
        UserError: there are none, or one is a link that leads out of the folder.
    """
    files = [
        path for path in folder.iterdir() if path.name.lower().endswith(PICTURES) and not path.name.startswith(".")
    ]
    if not files:
        raise UserError(f"{folder} holds no images; fill it with a clip's frames or remove it")
    for path in files:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} leads out of its folder; put the file itself there")
    return sorted(files, key=lambda path: [(len(n), n) for n in re.split(r"(\d+)", path.name.lower())])


def contents(medium: Medium) -> Iterator[bytes]:
    """The bytes that identify it, in parts; of a folder those of its frames.

    Raises:
        UserError: a file is missing.
    """
    if isinstance(medium, bytes):
        yield medium
        return
    for path in frame_files(medium) if medium.is_dir() else [medium]:
        try:
            if medium.is_dir():
                yield f"{path.stat().st_size} ".encode()
            with path.open("rb") as file:
                while part := file.read(CHUNK):
                    yield part
        except FileNotFoundError as error:
            raise UserError(f"there is no file {path}; check the path") from error


@contextlib.contextmanager
def _errors(label: str) -> Iterator[None]:
    """Say whose medium cannot be read."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{label}: {error}") from error


@contextlib.contextmanager
def _as_file(medium: Medium) -> Iterator[Path]:
    """A clip's path; of bytes that of a temporary file, as videos are read from files."""
    if isinstance(medium, Path):
        yield medium
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embedded clip"
        path.write_bytes(medium)
        yield path


def _is_video(medium: bytes) -> bool:
    """Whether bytes begin as MP4, MOV, Matroska, WebM or AVI files do; else an error is to speak of an image."""
    return medium[4:8] == b"ftyp" or medium[:4] == b"\x1a\x45\xdf\xa3" or medium[8:11] == b"AVI"
