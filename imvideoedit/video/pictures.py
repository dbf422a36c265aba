"""Opening picture files with Pillow: the one place, so that only decoders that run no program see anybody's bytes."""

import io
from pathlib import Path

from PIL import EpsImagePlugin, Image

# Pillow would try all that it knows, among them EPS, which is a program that Ghostscript runs. An MPO opens as a JPEG.
FORMATS = (
    *("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM"),
    *("PSD", "ICO", "TGA", "SGI", "PCX", "QOI", "DDS"),
)
EpsImagePlugin.gs_binary = False  # also for libraries that open uploads themselves


def open_picture(file: Path | str | bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture of one of the formats, opened and not yet decoded.

    Args:
        file: a path, or a file's bytes.
        formats: Pillow's names.

    Raises:
        PIL.UnidentifiedImageError: it is none, or of another format.
        OSError: the file is missing or unreadable.
    """
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats)
