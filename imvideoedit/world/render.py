"""Draw a nano scene: array operations over all frames and pixels at once.

Legend: F frames, H height, W width; colour planes come first. All arrays are float32, colours in [0, 1].
"""

import numpy as np

from imvideoedit.world.creatures import creature_distance
from imvideoedit.world.scenes import BACKGROUND_COLORS, OBJECT_COLORS, RIGID_KINDS, TEMPERATURES, Scene, Thing
from imvideoedit.world.styles import apply_style

SPEED = 0.016  # world units per frame of a moving thing
LIGHT_SIDE = {"front": (0.0, 0.0), "left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0)}
VIEW_SCALE = {"normal": 1.0, "close": 0.72, "wide": 1.4, "tilted": 1.0}


def render(scene: Scene, frames: int = 1, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Draw ``frames`` frames of ``size`` (height, width).

    Returns ``[F, H, W, 3]`` uint8.
    """
    time_F = np.arange(frames, dtype=np.float32)[:, None, None]
    x_FHW, y_FHW = _camera_rays(scene, time_F, size)
    pixel = _pixel_size(scene, time_F, size)
    canvas = _background(scene, x_FHW, y_FHW)
    lit_from = LIGHT_SIDE[scene.direction]
    for thing in scene.things:
        _draw(canvas, thing, time_F, x_FHW, y_FHW, pixel, lit_from)
    _light(canvas, scene, size)
    canvas = apply_style(np.clip(canvas, 0, 1, out=canvas), scene.style)
    return np.ascontiguousarray((canvas * 255 + 0.5).astype(np.uint8).transpose(1, 2, 3, 0))


def which_thing(scene: Scene, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What is visible at each point of a coarse grid: 0 for the background, i + 1 for the scene's thing i.

    Args:
        times: frame numbers, which may lie between frames.
        size: points in height and width.

    Returns ``[len(times), H, W]`` integers.
    """
    time_F = np.asarray(times, np.float32)[:, None, None]
    x_FHW, y_FHW = _camera_rays(scene, time_F, size)
    seen = np.zeros(x_FHW.shape, np.int64)
    for number, thing in enumerate(scene.things, start=1):
        cx, cy = centre(thing, time_F)
        radius = np.float32(thing.radius)
        seen[_distance(thing, time_F, (x_FHW - cx) / radius, (y_FHW - cy) / radius) < 0] = number
    return seen


def visible_share(scene: Scene, index: int | None, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Share of each pixel's colour that is the body of one thing, or the background, before light, halos and style.

    Args:
        index: of the thing in the scene; None for the background.

    Returns ``[F, H, W]`` float32 in [0, 1]: the thing's cover, less what later things cover.
    """
    time_F = np.arange(frames, dtype=np.float32)[:, None, None]
    x_FHW, y_FHW = _camera_rays(scene, time_F, size)
    pixel = _pixel_size(scene, time_F, size)
    share = np.ones(x_FHW.shape, np.float32)
    for number, thing in enumerate(scene.things):
        if index is not None and number < index:
            continue
        cx, cy = centre(thing, time_F)
        radius = np.float32(thing.radius)
        distance = _distance(thing, time_F, (x_FHW - cx) / radius, (y_FHW - cy) / radius)
        cover = _cover(distance, pixel / radius)
        share *= cover if number == index else 1 - cover
    return share


def centre(thing: Thing, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World position ``(x, y)`` of a thing's centre at each time; straight paths are reflected at the frame's edge."""
    x, y = np.full_like(time, thing.x), np.full_like(time, thing.y)
    if thing.motion == "circling":
        angle = thing.phase + 0.2 * time
        x += 0.12 * (np.cos(angle) - np.cos(thing.phase))
        y += 0.12 * (np.sin(angle) - np.sin(thing.phase))
    elif thing.motion == "bouncing":
        y -= 0.18 * np.abs(np.sin(0.22 * time))
    elif thing.motion != "still":
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[thing.motion.split()[1]]
        x, y = _between_walls(x + dx * SPEED * time), _between_walls(y + dy * SPEED * time)
    return x, y


def _between_walls(position: np.ndarray) -> np.ndarray:
    """Reflect a straight path at 0.05 and 0.95."""
    span = 0.9
    folded = np.mod(position - 0.05, 2 * span)
    return (0.05 + np.minimum(folded, 2 * span - folded)).astype(np.float32)


def _zoom(scene: Scene, time: np.ndarray) -> np.ndarray:
    rate = {"zoom in": -0.012, "zoom out": 0.012}.get(scene.camera, 0.0)
    return np.float32(VIEW_SCALE[scene.view]) * np.exp(np.float32(rate) * time)


def _pixel_size(scene: Scene, time_F: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return _zoom(scene, time_F) / np.float32(min(size))


def _camera_rays(scene: Scene, time_F: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """World coordinates of every pixel in every frame; the shorter side spans one unit at scale one."""
    height, width = size
    v = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / min(size))[None, :, None]
    u = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / min(size))[None, None, :]
    if scene.view == "tilted":
        cos, sin = np.float32(np.cos(0.35)), np.float32(np.sin(0.35))
        u, v = cos * u - sin * v, sin * u + cos * v
    scale = _zoom(scene, time_F)
    pan = {"pan left": -0.006, "pan right": 0.006}.get(scene.camera, 0.0)
    full = (len(time_F), height, width)
    x = np.broadcast_to(0.5 + np.float32(pan) * time_F + scale * u, full)
    y = np.broadcast_to(0.5 + scale * v, full)
    return x.astype(np.float32), y.astype(np.float32)


def _background(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The patterned background, ``[3, F, H, W]``: the base colour and a darker or lighter tone of it."""
    base = np.array(BACKGROUND_COLORS[scene.background], np.float32)
    other = base * 0.62 if base.mean() > 0.35 else base + 0.22 * (1 - base)
    tone = _pattern(scene.pattern, x, y)
    return base[:, None, None, None] + (other - base)[:, None, None, None] * tone


def _pattern(pattern: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of the second tone shows, in [0, 1]; edges are soft so that a moving camera does not alias."""
    if pattern == "plain":
        return 0.12 * (1 + np.sin(2.1 * y + 1.0))
    if pattern == "striped":
        return _soft(np.sin(x * np.float32(8 * np.pi)))
    if pattern == "checkered":
        return _soft(np.sin(x * np.float32(4 * np.pi)) * np.sin(y * np.float32(4 * np.pi)) * 2)
    if pattern == "dotted":
        dx, dy = (x * 4) % 1 - 0.5, (y * 4) % 1 - 0.5
        return _soft((0.075 - dx * dx - dy * dy) * 20)
    if pattern == "wavy":
        return _soft(np.sin(np.float32(8 * np.pi) * (y + 0.05 * np.sin(x * np.float32(3 * np.pi)))))
    waves = np.sin(5.3 * x + 2.2 * np.sin(3.7 * y)) + np.sin(6.1 * y - 1.7 * np.sin(4.3 * x + 1.0))
    return 0.5 + 0.25 * waves


def _soft(wave: np.ndarray) -> np.ndarray:
    return np.clip(wave * 2.5 + 0.5, 0, 1)


def _draw(canvas, thing: Thing, time_F, x, y, pixel, lit_from) -> None:
    """Paint shadow, halo, body and marks of one thing onto ``canvas`` in place."""
    cx, cy = centre(thing, time_F)
    radius = np.float32(thing.radius)
    u, v = (x - cx) / radius, (y - cy) / radius
    edge = pixel / radius
    if any(lit_from):
        shadow = _cover(_distance(thing, time_F, u + 0.4 * lit_from[0], v + 0.4 * lit_from[1]), edge * 3)
        canvas *= 1 - 0.45 * shadow
    distance = _distance(thing, time_F, u, v)
    color = np.array(OBJECT_COLORS[thing.color], np.float32)[:, None, None, None]
    if thing.state == "glowing":
        halo = 0.75 * np.exp(-4.0 * np.maximum(distance, 0))
        canvas += halo * (0.35 * color + 0.65 - canvas)
    shade = _material(thing.material, u, v)
    cover = _cover(distance, edge)
    canvas += cover * (np.clip(color * shade[0] + shade[1], 0, 1) - canvas)
    if thing.state in ("cracked", "smiling"):
        _mark(canvas, thing.state, u, v, edge, cover)


def _cover(distance: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Share of each pixel that the body covers; ``edge`` is a pixel's size in the thing's own units."""
    return np.clip(0.5 - distance / edge, 0, 1)


def _material(material: str, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(gain, white added)`` over the body."""
    if material == "shiny":
        spot = np.exp(-6.0 * ((u + 0.35) ** 2 + (v + 0.35) ** 2))
        return np.float32(1.0) - 0.25 * np.clip(v, 0, 1), 0.85 * spot
    if material == "banded":
        return 1 - 0.5 * _soft(np.sin(7.5 * v)), np.zeros((), np.float32)
    if material == "spotted":
        du, dv = (u * 1.6) % 1 - 0.5, (v * 1.6) % 1 - 0.5
        return np.ones((), np.float32), 0.7 * _soft((0.08 - du * du - dv * dv) * 16)
    return np.ones((), np.float32), np.zeros((), np.float32)


def _mark(canvas, state: str, u, v, edge, cover) -> None:
    if state == "cracked":
        path = u - 0.25 * (np.abs((v * 1.5) % 2 - 1) * 2 - 1)
        canvas *= 1 - 0.85 * _cover(np.abs(path) - 0.11, edge) * cover
        return
    eyes = np.minimum((u - 0.33) ** 2, (u + 0.33) ** 2) + (v + 0.15) ** 2
    white, pupil = _cover(np.sqrt(eyes) - 0.27, edge) * cover, _cover(np.sqrt(eyes) - 0.13, edge) * cover
    canvas += white * (1 - canvas)
    canvas *= 1 - pupil


def _distance(thing: Thing, time_F, u, v) -> np.ndarray:
    """Signed distance to the outline in the thing's own units (radius 1), negative inside."""
    if thing.kind not in RIGID_KINDS:
        return creature_distance(thing.kind, u, v, thing.phase + 0.45 * time_F)
    a, b = np.abs(u), np.abs(v)
    if thing.kind == "ball":
        return np.sqrt(u * u + v * v) - 0.95
    if thing.kind == "box":
        return np.maximum(a, b) - 0.82
    if thing.kind == "triangle":
        return np.maximum(0.866 * a - 0.5 * v - 0.5, v - 0.62)
    if thing.kind == "star":
        angle = np.arctan2(u, -v)
        return np.sqrt(u * u + v * v) - (0.72 + 0.3 * np.cos(5 * angle))
    if thing.kind == "ring":
        return np.abs(np.sqrt(u * u + v * v) - 0.68) - 0.3
    if thing.kind == "cross":
        return np.minimum(np.maximum(a - 0.33, b - 0.97), np.maximum(a - 0.97, b - 0.33))
    return 0.75 * (a + b) - 0.8


def _light(canvas: np.ndarray, scene: Scene, size: tuple[int, int]) -> None:
    """Colour temperature, and a ramp across the frame for light from one side, in place."""
    temperature = np.array(TEMPERATURES[scene.temperature], np.float32)[:, None, None, None]
    side_x, side_y = LIGHT_SIDE[scene.direction]
    if scene.direction == "front":
        canvas *= temperature
        return
    u = (np.arange(size[1], dtype=np.float32) + 0.5) / size[1] * 2 - 1
    v = (np.arange(size[0], dtype=np.float32) + 0.5) / size[0] * 2 - 1
    ramp = 0.88 + 0.36 * (side_x * u[None, :] + side_y * v[:, None])
    canvas *= temperature * ramp
