"""What every picture and frame goes through on the way in, whatever file it is from: sRGB, on white."""

import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
# Every tenth or so level of each channel: what a profile does to these it does to all.
_PROBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 9).round().astype(np.uint8)] * 3), -1).reshape(27, 27, 3)


def on_white(image: Image.Image) -> Image.Image:
    """An image with transparency, composited on white as RGB: what is hidden stays hidden."""
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode RGB, L or CMYK in the colours that its ICC profile means, as sRGB.

    A profile that cannot be read or is of another colour space than the image is ignored, as viewers do; one that
    moves no colour by more than a level leaves the pixels to the bit.
    """
    if not profile:
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _SPACES.get(image.mode) != own.profile.xcolor_space:
            return image
        convert = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        if image.mode == "RGB" and _is_srgb(convert):
            return image
        return ImageCms.applyTransform(image, convert) or image
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image


def _is_srgb(convert: ImageCms.ImageCmsTransform) -> bool:
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(_PROBE), convert)).astype(int)
    return bool(np.abs(moved - _PROBE).max() <= 1)
