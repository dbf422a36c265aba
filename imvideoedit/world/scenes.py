"""Scenes of the nano world: their contents and motions, and which combinations are held out.

World units: the frame of a static, normal-view camera spans [0, 1] in both directions, y downwards; time counts
frames. Everything visible follows from a ``Scene``, so an edit of a scene is an exact edit of its video.
"""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

OBJECT_COLORS = {
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.90, 0.15),
    "green": (0.15, 0.75, 0.20),
    "cyan": (0.20, 0.88, 0.92),
    "blue": (0.15, 0.25, 0.95),
    "purple": (0.60, 0.15, 0.80),
    "pink": (1.00, 0.50, 0.75),
}
BACKGROUND_COLORS = {
    "grey": (0.55, 0.55, 0.55),
    "brown": (0.45, 0.28, 0.15),
    "navy": (0.08, 0.10, 0.32),
    "olive": (0.42, 0.45, 0.15),
    "teal": (0.05, 0.42, 0.42),
    "maroon": (0.40, 0.06, 0.14),
    "beige": (0.88, 0.80, 0.64),
    "lavender": (0.72, 0.68, 0.90),
}
PATTERNS = ("plain", "striped", "checkered", "dotted", "wavy", "cloudy")
RIGID_KINDS = ("ball", "box", "triangle", "star", "ring", "cross", "diamond")
CREATURE_KINDS = ("fish", "worm", "jellyfish", "bird")
KINDS = RIGID_KINDS + CREATURE_KINDS
MATERIALS = ("matte", "shiny", "banded", "spotted")
STATES = ("plain", "glowing", "cracked", "smiling")
SIZES = {"small": 0.13, "medium": 0.17, "large": 0.22}  # radius
MOTIONS = ("still", "moving left", "moving right", "moving up", "moving down", "circling", "bouncing")
LOCATIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
STYLES = ("natural", "pixel", "noir", "poster", "sepia", "watercolor")
TEMPERATURES = {"day": (1.0, 1.0, 1.0), "sunset": (1.12, 0.82, 0.55), "moon": (0.48, 0.58, 0.92)}
DIRECTIONS = ("front", "left", "right", "top")
CAMERAS = ("static", "pan left", "pan right", "zoom in", "zoom out")
VIEWS = ("normal", "close", "wide", "tilted")


def is_held_out(color: str, kind: str) -> bool:
    """True for the (colour, kind) pairs held out from training: about one in seven, of every colour and kind."""
    return (list(OBJECT_COLORS).index(color) + 3 * KINDS.index(kind)) % 7 == 0


TRAIN_PAIRS = tuple(p for p in itertools.product(OBJECT_COLORS, KINDS) if not is_held_out(*p))
TEST_PAIRS = tuple(p for p in itertools.product(OBJECT_COLORS, KINDS) if is_held_out(*p))


@dataclass(frozen=True)
class Thing:
    """One object. ``x, y`` is its centre at frame 0; ``phase`` (radians) where its own movement starts."""

    kind: str
    color: str
    material: str = "matte"
    state: str = "plain"
    size: str = "medium"
    motion: str = "still"
    x: float = 0.5
    y: float = 0.5
    phase: float = 0.0

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    @property
    def location(self) -> str:
        """The cell of a 3×3 grid that the centre lies in at frame 0."""
        column, row = min(int(self.x * 3), 2), min(int(self.y * 3), 2)
        return LOCATIONS[3 * row + column]


@dataclass(frozen=True)
class Scene:
    """A scene; later things are drawn over earlier ones."""

    background: str
    pattern: str
    things: tuple[Thing, ...] = field(default=())
    temperature: str = "day"
    direction: str = "front"
    camera: str = "static"
    view: str = "normal"
    style: str = "natural"

    def with_thing(self, index: int, **changes) -> "Scene":
        """The scene with attributes of one thing changed."""
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))


def cell_centre(location: str) -> tuple[float, float]:
    """Centre ``(x, y)`` of a location's cell."""
    index = LOCATIONS.index(location)
    return 0.5 + 0.29 * (index % 3 - 1), 0.5 + 0.29 * (index // 3 - 1)


def sample_thing(rng: np.random.Generator, pairs: tuple[tuple[str, str], ...], location: str) -> Thing:
    """A random thing of one of the allowed (colour, kind) ``pairs``, jittered inside its cell."""
    color, kind = pairs[rng.integers(len(pairs))]
    x, y = cell_centre(location)
    return Thing(
        kind=kind,
        color=color,
        material=str(rng.choice(MATERIALS, p=(0.4, 0.2, 0.2, 0.2))),
        state=str(rng.choice(STATES, p=(0.55, 0.15, 0.15, 0.15))),
        size=str(rng.choice(list(SIZES))),
        motion=str(rng.choice(MOTIONS)),
        x=float(x + rng.uniform(-0.08, 0.08)),
        y=float(y + rng.uniform(-0.08, 0.08)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def sample_scene(rng: np.random.Generator, split: str, counts: tuple[int, int] = (1, 3)) -> Scene:
    """A random scene of ``split`` ("train" or "test") with ``counts`` (lowest, highest) things.

    Training scenes hold no held-out (colour, kind) pair; a test scene's first thing always is one.
    """
    places = rng.permutation(len(LOCATIONS))
    things: list[Thing] = []
    for i in range(int(rng.integers(counts[0], counts[1] + 1))):
        allowed = TEST_PAIRS if split == "test" and i == 0 else TRAIN_PAIRS
        used = {(t.color, t.kind) for t in things}
        allowed = tuple(p for p in allowed if p not in used)
        things.append(sample_thing(rng, allowed, LOCATIONS[places[i]]))
    lit = rng.random() < 0.4
    return Scene(
        background=str(rng.choice(list(BACKGROUND_COLORS))),
        pattern=str(rng.choice(PATTERNS)),
        things=tuple(things),
        temperature=str(rng.choice(list(TEMPERATURES))) if lit else "day",
        direction=str(rng.choice(DIRECTIONS)) if lit else "front",
        camera=str(rng.choice(CAMERAS)) if rng.random() < 0.4 else "static",
        view=str(rng.choice(VIEWS)) if rng.random() < 0.25 else "normal",
        style=str(rng.choice(STYLES)) if rng.random() < 0.25 else "natural",
    )


def plain_scene(rng: np.random.Generator, split: str) -> Scene:
    """A plainly lit scene of ``split`` in natural style with one thing, seen by a static camera."""
    scene = sample_scene(rng, split, (1, 1))
    return Scene(scene.background, scene.pattern, scene.things)
