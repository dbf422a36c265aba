"""Rendering styles of the nano world, as exact functions of the naturally rendered frames."""

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def apply_style(canvas: np.ndarray, style: str) -> np.ndarray:
    """Restyle ``canvas`` ``[3, F, H, W]`` in [0, 1]; any H and W.

    natural: unchanged · pixel: 16 blocks along the shorter side · noir: contrasty grey · poster: four levels a
    channel, softly stepped · sepia: brown-toned grey · watercolor: blurred and paled.
    """
    if style == "natural":
        return canvas
    if style == "pixel":
        return mix_neighbours(canvas, style)
    if style == "poster":
        steps = canvas * 3
        level = np.floor(steps)
        return (level + np.clip((steps - level - 0.5) * 4 + 0.5, 0, 1)) / 3
    if style == "watercolor":
        return 0.38 + 0.6 * mix_neighbours(canvas, style)
    grey = np.tensordot(_LUMA, canvas, axes=1)
    if style == "noir":
        return np.broadcast_to(np.clip((grey - 0.45) * 1.5 + 0.45, 0, 1), canvas.shape)
    tone = np.array([1.0, 0.82, 0.58], np.float32)[:, None, None, None]
    return tone * (0.12 + 0.88 * grey)


def mix_neighbours(canvas: np.ndarray, style: str) -> np.ndarray:
    """The part of a style that mixes neighbouring pixels, for any number of planes ``[P, F, H, W]``."""
    if style == "pixel":
        return _blocks(canvas, max(min(canvas.shape[2:]) // 16, 1))
    if style == "watercolor":
        return _blur(canvas, max(min(canvas.shape[2:]) // 32, 1))
    return canvas


def _blocks(canvas: np.ndarray, side: int) -> np.ndarray:
    """Mean colour of ``side`` × ``side`` blocks; the last block of a row may be narrower."""
    rows, columns = (np.arange(0, n, side) for n in canvas.shape[2:])
    sums = np.add.reduceat(np.add.reduceat(canvas, rows, axis=2), columns, axis=3)
    heights, widths = (np.diff(np.append(s, n)) for s, n in zip((rows, columns), canvas.shape[2:], strict=True))
    means = sums / (heights[:, None] * widths[None, :]).astype(np.float32)
    return np.repeat(np.repeat(means, heights, axis=2), widths, axis=3)


def _blur(canvas: np.ndarray, radius: int) -> np.ndarray:
    """Box blur of half-width ``radius`` pixels along both axes, edges repeated."""
    for axis in (2, 3):
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        padded, length = np.pad(canvas, pad, mode="edge"), canvas.shape[axis]
        shifted = (np.take(padded, range(k, k + length), axis=axis) for k in range(2 * radius + 1))
        canvas = np.add.reduce(list(shifted)) / np.float32(2 * radius + 1)
    return canvas
