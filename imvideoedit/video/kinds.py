"""What a file holds: one picture, an animation of several, or a video. The one place where this is decided."""

import os.path
import warnings
from pathlib import Path
from typing import Literal

from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.containers import is_photo, is_still, opened
from imvideoedit.video.pictures import open_picture

Kind = Literal["still", "animation", "video"]

# By their endings files are chosen from folders and lists; a GIF may be either.
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
STILLS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm")
EITHER = (".gif",)
PICTURES = STILLS + EITHER
MEDIA = VIDEOS + PICTURES

_PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM")
_PAGED = ("TIFF",)
_SINGLE = ("MPO", "PSD")  # their further pictures are previews, depth maps or layers of the first
_SUBFILE_TYPE, _SMALLER_OR_MASK = 254, 0b101


def picture_count(image: Image.Image) -> int:
    """How many pictures an opened image has, of a TIFF without its previews; the image is left at its first."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format in _SINGLE:
        return 1
    if image.format in _PAGED:
        count = sum(not _is_preview(image, page) for page in range(count))
        image.seek(0)
    return count


def check_single(image: Image.Image, name: str) -> None:
    """See that an opened image is one picture.

    Raises:
        UserError: it has several, of which nobody has chosen one.
    """
    count = picture_count(image)
    if count > 1 and image.format in _PAGED:
        raise UserError(
            f"{name} has {count} pages, where one picture is needed; save the page you mean as its own file"
        )
    if count > 1:
        raise UserError(
            f"{name} is an animation of {count} pictures, where one is needed; save the one you mean as its own file"
        )


def kind_of(path: Path) -> Kind:
    """What a file holds, by its content. An image of several pages is a still, which reading then refuses.

    Raises:
        UserError: the file is missing, or neither an image nor a video.
    """
    found = _picture(path)
    if found is not None and found[0] != "JPEG":
        return "animation" if found[1] > 1 and found[0] not in _PAGED else "still"
    try:
        with opened(path) as container:
            return "still" if is_still(container) or is_photo(container) else "video"
    except UserError:
        if found is None:
            raise
        return "still"


def _picture(path: Path) -> tuple[str, int] | None:
    """Format and number of pictures of an image file; None if Pillow cannot open it."""
    if not os.path.isfile(path):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_picture(path, _PICTURES) as image:
                return str(image.format), picture_count(image)
    except Exception:  # decoders raise nearly anything on damaged bytes; who reads them says what is wrong
        return None


def _is_preview(image: Image.Image, page: int) -> bool:
    image.seek(page)
    return bool(image.tag_v2.get(_SUBFILE_TYPE, 0) & _SMALLER_OR_MASK)  # type: ignore[attr-defined]
