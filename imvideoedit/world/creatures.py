"""Outlines of the nano world's articulated and deforming creatures.

Each takes coordinates ``u, v`` in the creature's own units (radius 1, facing right) and its ``beat`` in radians,
and returns a signed distance (negative inside) of the same shape.
"""

import numpy as np


def creature_distance(kind: str, u: np.ndarray, v: np.ndarray, beat: np.ndarray) -> np.ndarray:
    """Signed distance of one creature; all creatures share the beat, so replacing one keeps the pose."""
    return {"fish": _fish, "worm": _worm, "jellyfish": _jellyfish, "bird": _bird}[kind](u, v, beat)


def _ellipse(u, v, half_u, half_v):
    return (np.sqrt((u / half_u) ** 2 + (v / half_v) ** 2) - 1) * np.minimum(half_u, half_v)


def _fish(u, v, beat):
    body = _ellipse(u - 0.2, v, 0.75, 0.48)
    swing = v - 0.35 * np.sin(beat) * np.clip(-u - 0.3, 0, 1)
    tail = np.maximum(np.abs(swing) * 0.8 + (u + 0.35) * 0.75, -u - 1.0)
    return np.minimum(body, tail)


def _worm(u, v, beat):
    spine = 0.32 * np.sin(3.2 * u + beat)
    return np.maximum(np.abs(v - spine) - 0.28, np.abs(u) - 1.0) * 0.8


def _jellyfish(u, v, beat):
    squeeze = 1 + 0.14 * np.sin(beat)
    dome = np.maximum(_ellipse(u, v + 0.1, 0.85 * squeeze, 0.8), v - 0.05)
    sway = u - 0.15 * np.sin(beat + 3.0 * v)
    legs = np.abs((sway + 0.9) % 0.6 - 0.3) - 0.11
    legs = np.maximum(legs, np.maximum(np.abs(sway) - 0.75, np.maximum(-v, v - 0.9)))
    return np.minimum(dome, legs)


def _bird(u, v, beat):
    body = _ellipse(u, v, 0.4, 0.5)
    lift = 0.55 * np.sin(beat)
    span = np.abs(u)
    wing = np.maximum(np.abs(v + 0.1 + lift * (span - 0.2)) - 0.24 * (1.15 - span), span - 1.05)
    return np.minimum(body, wing)
