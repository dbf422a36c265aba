"""HEIC photos of one piece, decoded with PyAV, as Pillow knows none."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.colour import check_colours, frame_format
from imvideoedit.video.containers import checked, opened
from imvideoedit.video.pixels import to_srgb

_BRANDS = (b"heic", b"heix", b"heim", b"mif1")


def is_heic(image: object) -> bool:
    """Whether this is the path of a HEIC photo, told by the file's first bytes."""
    path = Path(image) if isinstance(image, (str, Path)) else None
    if path is None or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(64)
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS and b"avif" not in head


def load_heic(path: Path, name: str) -> np.ndarray:
    """Decode a HEIC photo to upright uint8 ``[H, W, 3]``.

    Raises:
        UserError: it is damaged, or made of tiles, as large ones of phones are, which PyAV cannot put together.
    """
    with opened(path) as container:
        streams = container.streams.video
        whole = [stream for stream in streams if not stream.disposition & Disposition.dependent]
        if len(whole) < len(streams) or not whole:
            raise UserError(f"{name} is a HEIC photo made of tiles, which cannot be read; convert it to PNG or JPEG")
        main = max(whole, key=lambda stream: bool(stream.disposition & Disposition.default))
        frame = next(cast(Any, checked(path, container.decode(main))), None)
        if not isinstance(frame, VideoFrame):
            raise UserError(f"{name} holds no picture that can be decoded; convert it to PNG or JPEG")
        shown = frame_format(frame, main.sample_aspect_ratio)
        check_colours(shown.colour, name)
        rgb_HWC = shown.rgb(frame)
        profile = cast(Any, frame.side_data).get("ICC_PROFILE")
        return np.asarray(to_srgb(Image.fromarray(rgb_HWC), bytes(profile) if profile else None))
