"""Between a video's stored frames and upright RGB: colour, bit depth, orientation."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.pixels import on_white

UNSPECIFIED = 2
LIMITED, FULL = 1, 2
BT601, BT709 = 6, 1
# ffmpeg's converter has its own numbers for the matrices; those it lacks are refused or count as not stated.
_SWSCALE = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Ways to code colour that neither is for: read by another matrix, all colours would be wrong.
_UNREADABLE = {
    8: "YCgCo",
    11: "Y'D'zD'x",
    12: "derived",
    13: "derived",
    14: "ICtCp",
    15: "IPT",
    16: "YCgCo",
    17: "YCgCo",
}
# The converter's faster modes round down: each read and write would darken a frame by a level. With more than one
# thread, 10-bit results differ from call to call.
_FINE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
_TO_RGB: dict[str, Any] = {"interpolation": _FINE | Interpolation.FULL_CHR_H_INT, "threads": 1}
_FROM_RGB: dict[str, Any] = {"interpolation": _FINE | Interpolation.FULL_CHR_H_INP, "threads": 1}


@dataclass(frozen=True)
class Colour:
    """How a video's frames code colour; the numbers are those of ITU-T H.273, as the file states them."""

    range: int = LIMITED
    """1 limited, 2 full, 0 not stated."""
    matrix: int = BT709
    """2 is not stated, 0 RGB."""
    primaries: int = BT709
    """2 is not stated."""
    transfer: int = BT709
    """2 is not stated."""
    bits: int = 8
    """Of a sample."""
    pixel_format: str = "yuv420p"
    """ffmpeg's name."""

    @property
    def subsampling(self) -> str:
        """``420``, ``422`` or ``444``; also 420 where there is no chroma or an unusual one."""
        layout = VideoFormat(self.pixel_format, 8, 8)
        if layout.is_rgb or len(layout.components) < 3:
            return "420"
        return {(4, 8): "422", (8, 8): "444"}.get((layout.chroma_width(8), layout.chroma_height(8)), "420")

    def stated(self, stored_height: int, height: int) -> "Colour":
        """For a video of ``height`` with the colours of one stored ``stored_height`` high.

        The matrix is stated where players would guess another one than for the source. RGB becomes usual YUV.
        """
        if VideoFormat(self.pixel_format, 8, 8).is_rgb:
            return replace(self, range=LIMITED, matrix=BT709)
        guess = guessed_matrix(stored_height)
        misread = self.matrix == UNSPECIFIED and guess != guessed_matrix(height)
        return replace(self, matrix=guess) if misread else self

    def coded(self, rgb_HWC: np.ndarray, pixel_format: str) -> VideoFrame:
        """A frame to encode from uint8 ``[H, W, 3]``, in an ffmpeg format such as ``yuv420p10le`` or ``rgb24``."""
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), format="rgb24")
        if pixel_format == "rgb24":
            return frame
        known = _SWSCALE.get(self.matrix) or _SWSCALE[guessed_matrix(rgb_HWC.shape[0])]
        full = FULL if self.range == FULL else LIMITED
        return frame.reformat(format=pixel_format, dst_colorspace=known, dst_color_range=full, **_FROM_RGB)


@dataclass(frozen=True)
class FrameFormat:
    """How a stream's frames become upright RGB, from its first frame."""

    stored_width: int
    stored_height: int
    rotation: int
    """Degrees, counter-clockwise: 0, 90, 180 or 270."""
    transposed: bool
    flipped: tuple[bool, bool]
    """Upside down and left to right, after transposing."""
    aspect: Fraction
    """Width of a pixel by its height, of the upright frame."""
    colour: Colour
    alpha: bool = False
    """Whether the frames have transparency, which is then shown on white."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright frame."""
        sides = (self.stored_height, self.stored_width)
        return sides[::-1] if self.transposed else sides

    def is_opaque(self, frame: VideoFrame) -> bool:
        """Whether nothing in a frame with an alpha channel is transparent."""
        return bool((frame.to_ndarray(format="rgba")[..., 3] == 255).all())

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """Upright uint8 ``[H, W, 3]`` of a decoded frame, resized to the first one's size."""
        # Where the file does not state it, players go by the stored frame's height.
        guess = None
        if not frame.format.is_rgb and frame.colorspace not in _SWSCALE:
            guess = _SWSCALE[guessed_matrix(self.stored_height)]
        rgb = frame.to_ndarray(
            format="rgba" if self.alpha else "rgb24",
            width=self.stored_width,
            height=self.stored_height,
            src_colorspace=guess,
            **_TO_RGB,
        )
        if self.alpha:
            rgb = np.asarray(on_white(Image.fromarray(rgb)))
        turned = rgb.transpose(1, 0, 2) if self.transposed else rgb
        upside_down, mirrored = self.flipped
        return np.ascontiguousarray(turned[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def check_colours(colour: Colour, name: str) -> None:
    """See that frames can be read as RGB.

    Raises:
        UserError: they are coded by a matrix that is not known here; ``name`` says whose.
    """
    layout = VideoFormat(colour.pixel_format, 8, 8)
    if colour.matrix in _UNREADABLE and not layout.is_rgb and len(layout.components) >= 3:
        raise UserError(
            f"{name} codes its colours as {_UNREADABLE[colour.matrix]} (matrix {colour.matrix}), which cannot be read "
            "here; convert it to BT.709 first"
        )


def guessed_matrix(height: int) -> int:
    """The matrix that players assume for frames of ``height`` lines where the file does not state it."""
    return BT709 if height >= 720 else BT601


def frame_format(first: VideoFrame, aspect: Fraction | None) -> FrameFormat:
    """How to read a stream that begins with ``first``; ``aspect`` is a stored pixel's width by its height."""
    transposed, flipped = _orientation(first)
    components = first.format.components
    aspect = aspect or Fraction(1)
    return FrameFormat(
        stored_width=first.width,
        stored_height=first.height,
        rotation=round(first.rotation / 90) * 90 % 360,
        transposed=transposed,
        flipped=flipped,
        aspect=1 / aspect if transposed else aspect,
        colour=Colour(
            range=first.color_range,
            matrix=first.colorspace,
            primaries=first.color_primaries,
            transfer=first.color_trc,
            bits=components[0].bits,
            pixel_format=first.format.name,
        ),
        alpha=first.format.has_palette or any(component.is_alpha for component in components),
    )


def _orientation(first: VideoFrame) -> tuple[bool, tuple[bool, bool]]:
    # The file's matrix sends the stored (x, y) to the shown (a x + c y, b x + d y); cameras use quarter turns and
    # mirrors only, so of each pair one number is zero.
    side_data: Any = first.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, (False, False)
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2].tolist()
    transposed = abs(b) > abs(a)
    across, down = (c, b) if transposed else (a, d)
    return transposed, (down < 0, across < 0)
