"""Quality of the nano backbone's text-to-video: whether what the text names is seen, by a pixel classifier.

Colours, place, kind and motion are looked for in videos of one thing, the count in stills of one to three. Each check
is made of exact renderings, too, whose own score says how far it can be trusted. For a folder that is there already:
``python -m imvideoedit.nano.quality``.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import label

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.flow.guidance import guided
from imvideoedit.flow.solvers import shifted_sigmas, solve
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.forward import denoise
from imvideoedit.world.grammar import describe
from imvideoedit.world.render import render, which_thing
from imvideoedit.world.scenes import (
    BACKGROUND_COLORS,
    KINDS,
    LOCATIONS,
    OBJECT_COLORS,
    Scene,
    Thing,
    cell_centre,
    plain_scene,
    sample_scene,
)

MOVED = 2.0  # pixels from the first place: at least this is motion
JUMPED = 6.0  # pixels from frame to frame: more is flicker, as nothing in the world is that fast
SMALLEST = 12  # pixels of a thing that must be visible in every frame
COUNTED = 30  # pixels in one piece of one colour: a thing, not the rim of another
PHASES = 6  # of a creature's movement, which no text tells
MOST_THINGS = 3


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
    labels, points_P3, label_P = _palette()
    # Each colour is looked up once: a rendered video has far fewer of them than pixels.
    packed = video_FHWC.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colors, which = np.unique(packed, return_inverse=True)
    colors_C13 = ((colors[:, None] >> np.array([16, 8, 0], np.uint32)) & 255).astype(np.float32)[:, None] / 255.0
    nearest_C = ((colors_C13 - points_P3) ** 2).sum(-1).argmin(-1)
    return labels, label_P[nearest_C][which].reshape(video_FHWC.shape[:-1])


@functools.cache
def _palette() -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """Labels, the points ``[P, 3]`` in [0, 1] that colours are compared with, and the label's index of each."""
    palette = [(("background", name), tone) for name in BACKGROUND_COLORS for tone in tones(name)]
    palette += [(("object", name), np.array(color)) for name, color in OBJECT_COLORS.items()]
    labels = sorted({label for label, _ in palette})
    points_P3 = np.stack([color for _, color in palette]).astype(np.float32)
    return labels, points_P3, np.array([labels.index(label) for label, _ in palette])


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


def place_of(mask_HW: np.ndarray) -> str | None:
    """The cell of a 3x3 grid, as texts name it, that is nearest to a thing's middle; None where nothing is."""
    if mask_HW.sum() < SMALLEST:
        return None
    middle = np.argwhere(mask_HW).mean(0)[::-1] / mask_HW.shape[::-1]
    return min(LOCATIONS, key=lambda place: float(np.linalg.norm(middle - cell_centre(place))))


def kind_of(mask_HW: np.ndarray, thing: Thing) -> str | None:
    """The kind whose outline, moved to the same middle, covers a thing best; None where nothing is.

    Args:
        thing: tells the size.
    """
    if mask_HW.sum() < SMALLEST:
        return None
    y, x = np.argwhere(mask_HW).mean(0) / mask_HW.shape

    def overlap(kind: str, phase: float) -> float:
        outline_HW = _outline(kind, thing.size, phase, mask_HW.shape)
        off = np.array([y, x]) - np.argwhere(outline_HW).mean(0) / mask_HW.shape
        moved_HW = np.roll(outline_HW, np.round(off * mask_HW.shape).astype(int), (0, 1))
        return float((moved_HW & mask_HW).sum() / (moved_HW | mask_HW).sum())

    phases = np.linspace(0, 2 * np.pi, PHASES, endpoint=False)
    return max(KINDS, key=lambda kind: max(overlap(kind, phase) for phase in phases))


@functools.cache
def _outline(kind: str, size: str, phase: float, shape: tuple[int, int]) -> np.ndarray:
    thing = Thing(kind, "red", size=size, phase=phase)
    return which_thing(Scene("grey", "plain", (thing,)), np.zeros(1), shape)[0] > 0


def count_of(frame_HWC: np.ndarray) -> int:
    """Things in a frame whose things all have colours of their own."""
    labels, named = name_pixels(frame_HWC[None])
    pieces = [label(named[0] == number)[0] for number, (kind, _) in enumerate(labels) if kind == "object"]
    return sum(np.bincount(piece.ravel())[1:].max(initial=0) >= COUNTED for piece in pieces)


def crowded_scene(rng: np.random.Generator, count: int) -> Scene:
    """A plainly lit scene of the test split with so many clean, matte objects, each of a colour of its own."""
    while True:
        scene = sample_scene(rng, "test", (count, count))
        if len({thing.color for thing in scene.things}) == count:
            things = tuple(replace(thing, material="matte", state="plain") for thing in scene.things)
            return Scene(scene.background, scene.pattern, things)


def clean_scene(rng: np.random.Generator) -> Scene:
    """A plainly lit scene of the test split with one clean, moving, matte object."""
    scene = plain_scene(rng, "test")
    motion = scene.things[0].motion if scene.things[0].motion != "still" else "circling"
    return scene.with_thing(0, material="matte", state="plain", motion=motion)


def generator(backbone: Backbone, steps: int, guidance: float) -> Callable[[list[str], int], np.ndarray]:
    """A text-to-video sampler: (prompts, frames) to ``[B, F, 64, 64, 3]`` uint8."""

    @torch.no_grad()
    def generate(prompts: list[str], frames: int) -> np.ndarray:
        text, empty = backbone.encode_text(prompts), backbone.encode_text([""] * len(prompts))
        channels = backbone.transformer.config.in_channels
        latent_frames = (frames - 1) // backbone.vae_temporal + 1
        side = 64 // backbone.vae_spatial
        noise = torch.randn(
            (len(prompts), channels, latent_frames, side, side), generator=torch.Generator().manual_seed(len(prompts))
        ).to(backbone.device)

        def velocity(text_BTD):
            return lambda x_BCFHW, sigma_B: denoise(backbone.transformer, x_BCFHW, sigma_B, text_BTD)

        latents = solve(guided(velocity(text), velocity(empty), guidance), noise, shifted_sigmas(steps, backbone.shift))
        pixels = (backbone.decode_video(latents).cpu() + 1) * 127.5
        return pixels.round().byte().permute(0, 2, 3, 4, 1).numpy()

    return generate


@torch.no_grad()
def measure(
    generate: Callable[[list[str], int], np.ndarray], samples: int = 200, frames: int = 17, seed: int = 11
) -> dict:
    """Fractions of ``samples`` that show what the prompt names, and the same of exact renderings.

    Args:
        generate: (prompts, frames) to ``[B, F, H, W, 3]`` uint8.
    """
    rng = np.random.default_rng(seed)
    scenes = [clean_scene(rng) for _ in range(samples)]
    crowds = [crowded_scene(rng, 1 + number % MOST_THINGS) for number in range(samples)]

    def draw(of: Sequence[Scene], length: int) -> np.ndarray:
        parts = [generate([describe(scene) for scene in of[i : i + 20]], length) for i in range(0, len(of), 20)]
        return np.concatenate(parts)

    exact, crowded = (np.stack([render(scene, n) for scene in of]) for of, n in ((scenes, frames), (crowds, 1)))
    return {
        "generated": _shares(draw(scenes, frames), scenes) | _counts(draw(crowds, 1), crowds),
        "exact": _shares(exact, scenes) | _counts(crowded, crowds),
        "samples": samples,
    }


def _shares(videos: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
    seen = [seen_colors(video) for video in videos]
    background = np.array([s[0] == scene.background for s, scene in zip(seen, scenes, strict=True)])
    thing = np.array([s[1] == scene.things[0].color for s, scene in zip(seen, scenes, strict=True)])
    things = [scene.things[0] for scene in scenes]
    masks = [_shown(video[0], each.color) for video, each in zip(videos, things, strict=True)]
    return {
        "background_color": float(background.mean()),
        "object_color": float(thing.mean()),
        "both_colors": float((background & thing).mean()),
        "place": float(np.mean([place_of(mask) == each.location for mask, each in zip(masks, things, strict=True)])),
        "kind": float(np.mean([kind_of(mask, each) == each.kind for mask, each in zip(masks, things, strict=True)])),
        "motion": float(np.mean([moves(video) for video in videos])),
    }


def _counts(stills: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
    right = [count_of(still[0]) == len(scene.things) for still, scene in zip(stills, scenes, strict=True)]
    return {"count": float(np.mean(right))}


def _shown(frame_HWC: np.ndarray, color: str) -> np.ndarray:
    """The largest piece of an object colour in a frame, ``[H, W]`` bool."""
    labels, named = name_pixels(frame_HWC[None])
    pieces, count = label(named[0] == labels.index(("object", color)))
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax() if count else pieces > 0


@exit_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """The command; prints the shares as JSON."""
    parser = CommandLine(prog="python -m imvideoedit.nano.quality", description=__doc__)
    add = parser.add_argument
    add("backbone", nargs="?", default="nano", help="a nano folder; default: the bundled one")
    add("--samples", type=int, default=60, help="videos, and as many stills (default %(default)s)")
    add("--steps", type=int, default=25, help="solver steps (default %(default)s)")
    add("--guidance", type=float, default=3.0, metavar="SCALE", help="by the text (default %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.samples, options.steps) < 1 or options.guidance < 1:
        raise UserError("--samples, --steps and --guidance must be at least 1")
    backbone = load_backbone(options.backbone)
    if not backbone.is_nano:
        raise UserError(f"{options.backbone} is no nano backbone; the check knows scenes of the nano world only")
    print(json.dumps(measure(generator(backbone, options.steps, options.guidance), options.samples), indent=2))


if __name__ == "__main__":
    main()
