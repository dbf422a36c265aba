"""Still images of any common kind as plain uint8 RGB."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from imvideoedit.common.errors import UserError
from imvideoedit.video.kinds import check_single
from imvideoedit.video.photos import is_heic, load_heic
from imvideoedit.video.pictures import open_picture, png_chunks
from imvideoedit.video.pixels import on_white, to_srgb

ImageSource = Image.Image | Path | str | bytes

_ORIENTATION_TAG = 0x0112
_TURNED_ORIENTATIONS = {5, 6, 7, 8}
OPAQUE = 255


def load_rgb(image: ImageSource, name: str | None = None) -> np.ndarray:
    """Decode an image to uint8 ``[H, W, 3]``, as a viewer would show it on white.

    The EXIF rotation is applied, transparency composited on white, greyscale, palette, CMYK and 16-bit
    values (scaled from 0..65535) converted, and the colours that an ICC profile means given as sRGB.

    Args:
        image: an opened image, a path, or a file's bytes.
        name: what to call the image in an error; the path by default.

    Raises:
        UserError: the file is missing, no image, damaged, implausibly large, holds float values, or several pictures.
    """
    name = name or _name(image)
    if is_heic(image):
        return load_heic(Path(str(image)), name)
    opened = _open(image, name)
    try:
        check_single(opened, name)
        upright = ImageOps.exif_transpose(opened)
        return np.array(to_rgb(upright, name), dtype=np.uint8)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise UserError(f"cannot decode {name}: {error}; replace the image") from error


def image_size(image: ImageSource, name: str | None = None) -> tuple[int, int]:
    """``(height, width)`` of the upright image, read from the header alone.

    Raises:
        UserError: the file is missing, no image, implausibly large, or holds several pictures.
    """
    name = name or _name(image)
    if is_heic(image):
        height, width = load_heic(Path(str(image)), name).shape[:2]
        return height, width
    opened = _open(image, name)
    try:
        check_single(opened, name)
        orientation = exif_of(opened).get(_ORIENTATION_TAG, 1)
    except UserError:
        raise
    except Exception as error:  # as in load_rgb
        raise UserError(f"cannot decode {name}: {error}; replace the image") from error
    width, height = opened.size
    return (width, height) if orientation in _TURNED_ORIENTATIONS else (height, width)


def exif_of(opened: Image.Image) -> Image.Exif:
    """Without decoding the pixels, as a PNG's own ``getexif`` does since metadata may follow them."""
    if isinstance(opened, PngImageFile) and opened.fp is not None and not _has_metadata_after_pixels(opened):
        return Image.Image.getexif(opened)
    return opened.getexif()


def _has_metadata_after_pixels(opened: PngImageFile) -> bool:
    """Whether a PNG has any chunk but the end after its first pixels."""
    assert opened.fp is not None
    pixels = False
    for kind, _ in png_chunks(opened.fp):
        if pixels and kind not in (b"IDAT", b"IEND"):
            return True
        pixels = pixels or kind == b"IDAT"
    return False


def _open(image: ImageSource, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(image, Image.Image):
                return image
            return open_picture(image)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {name}; check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{name} claims more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down before use"
        ) from error
    except Exception as error:  # as in load_rgb
        raise UserError(f"cannot read {name} as an image; replace it") from error


def has_alpha(image: ImageSource, name: str | None = None) -> bool:
    """Whether anything in an image is transparent; the arguments are those of ``load_rgb``.

    Raises:
        UserError: it cannot be read.
    """
    if is_heic(image):
        return False
    name = name or _name(image)
    opened = _open(image, name)
    try:
        return opened.has_transparency_data and opened.convert("RGBA").getchannel("A").getextrema()[0] != OPAQUE
    except Exception as error:  # as in load_rgb
        raise UserError(f"cannot decode {name}: {error}; replace the image") from error


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A decoded image as RGB, as it is stored: not turned by EXIF.

    Raises:
        UserError: it holds float values, or ones beyond 16 bits.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise UserError(f"{name} holds float values of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{name} holds values beyond 16 bits; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        grey = image.mode in ("L", "LA")
        colours = to_srgb(image.convert("L") if grey else layer.convert("RGB"), profile).convert("RGB")
        colours.putalpha(layer.getchannel("A"))
        return on_white(colours)
    return to_srgb(image.convert("RGB") if image.mode == "P" else image, profile).convert("RGB")


def _name(image: ImageSource) -> str:
    return str(image) if isinstance(image, (str, Path)) else "the image"
