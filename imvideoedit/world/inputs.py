"""What an edit may be told besides its text: exact first frame, mask and reference of a change of scenes."""

import numpy as np

from imvideoedit.world.render import render, visible_share
from imvideoedit.world.scenes import Scene, Thing
from imvideoedit.world.styles import mix_neighbours

OF_ALL = ("temperature", "direction", "camera", "view", "style")  # attributes of a scene that change every pixel
OF_BACKGROUND = ("background", "pattern")
Place = tuple[float, float, int]


def first_frame(target: Scene, size: tuple[int, int]) -> np.ndarray:
    """The first frame after the edit, uint8 ``[H, W, 3]``."""
    return render(target, 1, size)[0]


def mask(source: Scene, target: Scene, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Where the edit is to be, bool ``[F, H, W]``: the bodies of the edited things, as the source shows them.

    An added thing is where the target shows it. For another background it is all where the background shows; for
    another style, light, camera or view the whole frame; where nothing is edited, nothing. A pixel counts that shows
    any of the thing. Its shadow, its halo, and what it may grow to are not part of it.
    """
    if _differ(source, target, OF_ALL):
        return np.ones((frames, *size), bool)
    edited = np.zeros((frames, *size), bool)
    if _differ(source, target, OF_BACKGROUND):
        edited |= _seen(source, None, frames, size)
    before, added = _edited(source, target)
    for scene, things in ((source, before), (target, added)):
        for thing in things.values():
            edited |= _seen(scene, scene.things.index(thing), frames, size)
    return edited


def reference(source: Scene, target: Scene, size: tuple[int, int]) -> np.ndarray:
    """The edited thing alone, uint8 ``[H, W, 3]``: still and plainly lit in the middle of a grey frame.

    It is as it is to become; a removed one as it was. Where an edit changes several things, all of the frame or
    nothing, it is the target's first frame.
    """
    before, added = _edited(source, target)
    if len(before) + len(added) != 1 or _differ(source, target, OF_ALL + OF_BACKGROUND):
        return first_frame(target, size)
    (place, thing), *_ = [*before.items(), *added.items()]
    shown = _by_place(target).get(place, thing)
    alone = Thing(shown.kind, shown.color, shown.material, shown.state, shown.size, phase=shown.phase)
    return render(Scene("grey", "plain", (alone,)), 1, size)[0]


def _differ(source: Scene, target: Scene, attributes: tuple[str, ...]) -> bool:
    return any(getattr(source, name) != getattr(target, name) for name in attributes)


def _edited(source: Scene, target: Scene) -> tuple[dict[Place, Thing], dict[Place, Thing]]:
    """Things of the source that the target has not or has otherwise, and things of the target that are new."""
    before, after = _by_place(source), _by_place(target)
    changed = {place: thing for place, thing in before.items() if after.get(place) != thing}
    return changed, {place: thing for place, thing in after.items() if place not in before}


def _by_place(scene: Scene) -> dict[Place, Thing]:
    """The things by where they start, which no edit changes; of those that start at one place, by their order."""
    starts = [(thing.x, thing.y) for thing in scene.things]
    return {(*start, starts[:number].count(start)): scene.things[number] for number, start in enumerate(starts)}


def _seen(scene: Scene, index: int | None, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Where a thing, or the background, shows in the scene's style, be it in part of a pixel."""
    return mix_neighbours(visible_share(scene, index, frames, size)[None], scene.style)[0] > 0
