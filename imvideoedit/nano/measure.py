"""Does the nano backbone draw what it is asked for? A pixel classifier for colours, and a check for motion."""

from collections.abc import Callable

import numpy as np
import torch

from .grammar import describe
from .render import render
from .scenes import BACKGROUND_COLORS, OBJECT_COLORS, Scene, sample_scene

MOTION_THRESHOLD = 8.0  # mean |first - later frame| over the most changed twentieth of pixels, of 255


def tones(background: str) -> np.ndarray:
    """Five colours ``[5, 3]`` in [0, 1], from a background's darker to its lighter tone."""
    scene = Scene(background=background, pattern="striped")
    pixels = render(scene)[0].reshape(-1, 3) / 255.0
    brightness = pixels.sum(1)
    return np.linspace(pixels[brightness.argmin()], pixels[brightness.argmax()], 5)


def seen_colors(video_FHWC: np.ndarray) -> tuple[str, str]:
    """``(background, object)`` colour names that most pixels of a plainly lit, natural-style video are nearest to.

    Every pixel votes for the nearest of all palette tones; the background is the background colour with most votes,
    the object's colour the object colour with most.
    """
    palette = [(("background", name), tone) for name in BACKGROUND_COLORS for tone in tones(name)]
    palette += [(("object", name), np.array(color)) for name, color in OBJECT_COLORS.items()]
    points = np.stack([color for _, color in palette])
    pixels = video_FHWC[::4].reshape(-1, 3) / 255.0
    nearest = ((pixels[:, None] - points[None]) ** 2).sum(-1).argmin(1)
    votes: dict[tuple[str, str], int] = {}
    for (label, _), count in zip(palette, np.bincount(nearest, minlength=len(palette)), strict=True):
        votes[label] = votes.get(label, 0) + int(count)
    best = {kind: max((v, n) for (k, n), v in votes.items() if k == kind)[1] for kind in ("background", "object")}
    return best["background"], best["object"]


def moves(video_FHWC: np.ndarray) -> bool:
    """Whether something visible changes place between the first and the middle frame."""
    change = np.abs(video_FHWC[0].astype(np.float32) - video_FHWC[len(video_FHWC) // 2]).mean(-1).ravel()
    return bool(np.sort(change)[-len(change) // 20 :].mean() > MOTION_THRESHOLD)


def plain_scene(rng: np.random.Generator) -> Scene:
    """A plainly lit scene of the test split with one clean, moving, matte object."""
    scene = sample_scene(rng, "test", (1, 1))
    motion = scene.things[0].motion if scene.things[0].motion != "still" else "circling"
    plain = Scene(scene.background, scene.pattern, scene.things)
    return plain.with_thing(0, material="matte", state="plain", motion=motion)


@torch.no_grad()
def measure(
    generate: Callable[[list[str], int], np.ndarray], samples: int = 200, frames: int = 17, seed: int = 11
) -> dict:
    """Shares of ``samples`` whose asked-for colours are seen and which move, and the same of the exact renderings.

    Args:
        generate: (prompts, frames) to ``[B, F, H, W, 3]`` uint8.
    """
    rng = np.random.default_rng(seed)
    scenes = [plain_scene(rng) for _ in range(samples)]
    drawn = np.concatenate([generate([describe(s) for s in scenes[i : i + 20]], frames) for i in range(0, samples, 20)])
    exact = np.stack([render(scene, frames) for scene in scenes])
    return {"generated": _shares(drawn, scenes), "exact": _shares(exact, scenes), "samples": samples}


def _shares(videos: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    seen = [seen_colors(video) for video in videos]
    background = np.array([s[0] == scene.background for s, scene in zip(seen, scenes, strict=True)])
    thing = np.array([s[1] == scene.things[0].color for s, scene in zip(seen, scenes, strict=True)])
    return {
        "background_color": float(background.mean()),
        "object_color": float(thing.mean()),
        "both_colors": float((background & thing).mean()),
        "motion": float(np.mean([moves(video) for video in videos])),
    }
