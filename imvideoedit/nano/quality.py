"""Quality of the nano backbone's text-to-video: a pixel classifier for colours, and a check for motion."""

from collections.abc import Callable

import numpy as np
import torch

from imvideoedit.world.grammar import describe
from imvideoedit.world.render import render
from imvideoedit.world.scenes import BACKGROUND_COLORS, OBJECT_COLORS, Scene, plain_scene

MOVED = 2.0  # pixels from the first place: at least this is motion
JUMPED = 6.0  # pixels from frame to frame: more is flicker, as nothing in the world is that fast
SMALLEST = 12  # pixels of a thing that must be visible in every frame


def tones(background: str) -> np.ndarray:
    """Five colours ``[5, 3]`` in [0, 1], from a background's darker to its lighter tone."""
    scene = Scene(background=background, pattern="striped")
    pixels = render(scene)[0].reshape(-1, 3) / 255.0
    brightness = pixels.sum(1)
    return np.linspace(pixels[brightness.argmin()], pixels[brightness.argmax()], 5)


def name_pixels(video_FHWC: np.ndarray) -> tuple[list[tuple[str, str]], np.ndarray]:
    """The colour nearest to each pixel of a plainly lit, natural-style video.

    Returns labels ``("background" or "object", colour)`` and ``[F, H, W]`` indices into them.
    """
    palette = [(("background", name), tone) for name in BACKGROUND_COLORS for tone in tones(name)]
    palette += [(("object", name), np.array(color)) for name, color in OBJECT_COLORS.items()]
    points = np.stack([color for _, color in palette])
    pixels = video_FHWC.astype(np.float32)[..., None, :] / 255.0
    nearest = ((pixels - points.astype(np.float32)) ** 2).sum(-1).argmin(-1)
    labels = sorted({label for label, _ in palette})
    return labels, np.array([labels.index(label) for label, _ in palette])[nearest]


def seen_colors(video_FHWC: np.ndarray) -> tuple[str, str]:
    """``(background, object)``: the background colour and the object colour that most pixels are nearest to."""
    labels, named = name_pixels(video_FHWC[::4])
    votes = dict(zip(labels, np.bincount(named.ravel(), minlength=len(labels)), strict=True))
    best = {kind: max((n, name) for (k, name), n in votes.items() if k == kind)[1] for kind in ("background", "object")}
    return best["background"], best["object"]


def moves(video_FHWC: np.ndarray) -> bool:
    """Whether the visible thing moves smoothly and never vanishes; flicker is no motion."""
    labels, named = name_pixels(video_FHWC)
    mask_FHW = named == labels.index(("object", seen_colors(video_FHWC)[1]))
    if mask_FHW.sum((1, 2)).min() < SMALLEST:
        return False
    places_F2 = np.array([np.argwhere(mask_HW).mean(0) for mask_HW in mask_FHW])
    jumps = np.linalg.norm(np.diff(places_F2, axis=0), axis=1)
    moved = np.linalg.norm(places_F2 - places_F2[0], axis=1)
    return bool(moved.max() >= MOVED and jumps.max() <= JUMPED)


def clean_scene(rng: np.random.Generator) -> Scene:
    """A plainly lit scene of the test split with one clean, moving, matte object."""
    scene = plain_scene(rng, "test")
    motion = scene.things[0].motion if scene.things[0].motion != "still" else "circling"
    return scene.with_thing(0, material="matte", state="plain", motion=motion)


@torch.no_grad()
def measure(
    generate: Callable[[list[str], int], np.ndarray], samples: int = 200, frames: int = 17, seed: int = 11
) -> dict:
    """Fractions of ``samples`` that show the prompt's colours and that move, and the same of exact renderings.

    Args:
        generate: (prompts, frames) to ``[B, F, H, W, 3]`` uint8.
    """
    rng = np.random.default_rng(seed)
    scenes = [clean_scene(rng) for _ in range(samples)]
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
