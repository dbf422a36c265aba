"""Videos with a known answer, and small lists of edits."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from imvideoedit.evaluation.edits.manifest import EditRow, write_manifest
from imvideoedit.video.reader import write_video

SIDE = 48


def texture(height: int = SIDE, width: int = 3 * SIDE, seed: int = 0, detail: float = 2.0) -> np.ndarray:
    """A smooth random picture, uint8 ``[H, W, 3]``."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = gaussian_filter(noise, (detail, detail, 0))
    return (127 + 45 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def moving(frames: int, speed: int, seed: int = 0) -> np.ndarray:
    """A texture that moves ``speed`` whole pixels to the left a frame, ``[F, H, W, 3]``."""
    picture = texture(seed=seed)
    return np.stack([picture[:, SIDE // 2 + speed * n :][:, :SIDE] for n in range(frames)])


def frozen(frames: int, seed: int = 0) -> np.ndarray:
    """The same picture again and again."""
    return moving(frames, 0, seed)


def alternating(frames: int) -> np.ndarray:
    """Two unlike pictures in turn."""
    return np.stack([frozen(1, seed=n % 2)[0] for n in range(frames)])


def flickering(frames: int, amplitude: int) -> np.ndarray:
    """One picture, a whole number of grey levels brighter in every other frame."""
    picture = frozen(1)[0].clip(20, 235)
    return np.stack([picture + np.uint8(amplitude * (n % 2)) for n in range(frames)])


def write_edits(folder: Path, count: int = 3, methods: tuple[str, ...] = ("ours", "other"), frames: int = 3) -> Path:
    """A manifest of small edits: each method's pictures are brightened by another amount."""
    rows = []
    for number in range(count):
        source = moving(frames, 1, seed=number)
        path = _write(folder / "source" / f"clip_{number}.mp4", source)
        for place, method in enumerate(methods, 1):
            edited = (source.astype(int) + 12 * place).clip(0, 255).astype(np.uint8)
            target = _write(folder / method / f"clip_{number}.mp4", edited)
            task = ("relighting", "style_transfer", "object_removal")[number % 3]
            texts = f"make scene {number} brighter", "a dark scene", "a bright red ball"
            rows.append(EditRow(f"clip_{number}", path, texts[0], target, method, task, texts[1], texts[2]))
    write_manifest(rows, folder / "manifest.jsonl")
    return folder


def _write(path: Path, video_FHWC: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, video_FHWC, fps=8, crf=4)
    return path
