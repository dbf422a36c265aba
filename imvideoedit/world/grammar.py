"""The nano world's language: a scene as a prompt, and an instruction turned into the prompt of the edited scene.

A prompt is a list of clauses separated by commas: style, view, camera, background, light, then one clause a thing::

    natural style, normal view, static camera, a navy striped background, day light from the front,
    a large red shiny star with a crack circling at the top left

Any clause may be missing, as in a real caption; then only the instruction's own words are known.
"""

import re

import numpy as np

from imvideoedit.world.scenes import (
    CAMERAS,
    KINDS,
    MOTIONS,
    OBJECT_COLORS,
    STYLES,
    TEMPERATURES,
    VIEWS,
    Scene,
    Thing,
)

STATE_WORDS = {"plain": "", "glowing": "with a glow", "cracked": "with a crack", "smiling": "with eyes"}
VIEW_INSTRUCTIONS = {
    "normal": "go back to the normal view",
    "close": "move the camera closer",
    "wide": "move the camera back for a wide view",
    "tilted": "tilt the camera",
}
_COLORS, _KINDS = "|".join(OBJECT_COLORS), "|".join(KINDS)
_NAME = rf"(?:{_COLORS}) (?:{_KINDS})"
_MOVING = re.compile("|".join(MOTIONS))
_CAMERA = re.compile(rf"\b(?:{'|'.join(CAMERAS)}) camera\b")


def name(thing: Thing) -> str:
    """How an instruction refers to a thing: colour and kind."""
    return f"{thing.color} {thing.kind}"


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def describe_thing(thing: Thing) -> str:
    """The clause of one thing."""
    material = "" if thing.material == "matte" else thing.material
    words = ["a", thing.size, thing.color, material, thing.kind, STATE_WORDS[thing.state], thing.motion]
    return " ".join([w for w in words if w] + [f"at the {thing.location}"])


def describe_light(scene: Scene) -> str:
    return f"{scene.temperature} light from the {scene.direction}"


def describe_background(scene: Scene) -> str:
    return _a(f"{scene.background} {scene.pattern} background")


def clauses(scene: Scene) -> list[str]:
    """The full description, clause by clause."""
    setting = [f"{scene.style} style", f"{scene.view} view", f"{scene.camera} camera"]
    return [*setting, describe_background(scene), describe_light(scene), *map(describe_thing, scene.things)]


def describe(scene: Scene) -> str:
    """The full prompt of a scene."""
    return ", ".join(clauses(scene))


def without_motion(text: str) -> str:
    """A prompt or an instruction in which every thing is still and the camera static, as a picture shows them."""
    return _CAMERA.sub("static camera", _MOVING.sub("still", text))


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A training caption: mostly the full prompt, else a part of it (at times with an absent thing) or nothing."""
    draw = rng.random()
    if draw < 0.1:
        return ""
    parts = clauses(scene)
    if draw < 0.3:
        keep = rng.random(len(parts)) < rng.uniform(0.1, 0.9)
        parts = [p for p, kept in zip(parts, keep, strict=True) if kept]
        if rng.random() < 0.3:
            color, kind = rng.choice(list(OBJECT_COLORS)), rng.choice(KINDS)
            if (color, kind) not in {(t.color, t.kind) for t in scene.things}:
                parts.append(f"no {color} {kind}")
    return ", ".join(parts)


def apply_instruction(instruction: str, source_prompt: str | None = None) -> str | None:
    """The edited prompt that an instruction asks for, given the source prompt where there is one.

    Without a source prompt the result describes only what the instruction itself says. Several instructions are joined
    by "and", each applied to the result of the one before. None if the instruction is not in the grammar.
    """
    parts: list[str] | None = [p.strip() for p in (source_prompt or "").split(",") if p.strip()]
    for text in " ".join(instruction.lower().strip(" .!").split()).split(" and "):
        parts = None if parts is None else _apply(text, parts)
    return None if parts is None else ", ".join(parts)


def _apply(text: str, parts: list[str]) -> list[str] | None:
    """The clauses after one instruction; None if it matches no rule."""
    for rule in (_style, _view, _light, _background, _add, _remove, _replace, _state, _appearance):
        edited = rule(text, list(parts))
        if edited is not None:
            return edited
    return None


def _set(parts: list[str], ending: str, clause: str) -> list[str]:
    """Replace the clause that contains ``ending``, or add ``clause``."""
    for i, part in enumerate(parts):
        if re.search(rf"\b{ending}\b", part) and not re.search(_NAME, part):
            parts[i] = clause
            return parts
    return [clause, *parts]


def _style(text: str, parts: list[str]) -> list[str] | None:
    what = r"(?:turn|make|render) (?:it|the video|the image) (?:into |in )?"
    match = re.fullmatch(rf"{what}({'|'.join(STYLES)}) style", text)
    return _set(parts, "style", f"{match[1]} style") if match else None


def _view(text: str, parts: list[str]) -> list[str] | None:
    wanted = [v for v in VIEWS if VIEW_INSTRUCTIONS[v] == text]
    return _set(parts, "view", f"{wanted[0]} view") if wanted else None


def _light(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(rf"change the light to (({'|'.join(TEMPERATURES)}) light from the \w+)", text)
    return _set(parts, "light", match[1]) if match else None


def _background(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(r"(?:replace|change) the background (?:with|to) (an? \w+ \w+ background)", text)
    return _set(parts, "background", match[1]) if match else None


def _add(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(rf"add (an? .*\b(?:{_COLORS})\b(?: \w+)? (?:{_KINDS})\b.*)", text)
    return [*parts, match[1]] if match else None


def _remove(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(rf"remove the ({_NAME})", text)
    if not match:
        return None
    kept = [p for p in parts if not _is(p, match[1])]
    return kept if len(kept) < len(parts) else [*parts, f"no {match[1]}"]


def _is(part: str, named: str) -> bool:
    """Whether a clause describes the thing called ``named`` ("red box"); a material may stand between."""
    color, kind = named.split()
    return bool(re.search(rf"\b{color}\b(?: \w+)? {kind}\b", part))


def _rewrite(parts: list[str], named: str, change, alone: str) -> list[str]:
    """Apply ``change`` to the clause of ``named``; without such a clause, say ``alone``."""
    for i, part in enumerate(parts):
        if _is(part, named):
            parts[i] = change(part)
            return parts
    return [*parts, alone]


def _replace(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(rf"replace the (({_COLORS}) ({_KINDS})) with an? ({_KINDS})", text)
    if not match:
        return None
    named, color, kind, new = match.groups()
    return _rewrite(parts, named, lambda p: re.sub(rf"\b{kind}\b", new, p), _a(f"{color} {new}"))


def _state(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(rf"give the ({_NAME}) (a glow|a crack|eyes)", text)
    match = match or re.fullmatch(rf"make the ({_NAME}) plain (again)", text)
    if not match:
        return None
    named = match[1]
    color, kind = named.split()
    words = "" if match[2] == "again" else f"with {match[2]}"

    def change(part: str) -> str:
        part = re.sub(r" with (?:a glow|a crack|eyes)", "", part)
        return re.sub(rf"\b{kind}\b", f"{kind} {words}".strip(), part)

    return _rewrite(parts, named, change, _a(f"{color} {kind} {words}".strip()))


def _appearance(text: str, parts: list[str]) -> list[str] | None:
    match = re.fullmatch(rf"make the ({_NAME}) (?:({_COLORS})|(matte|shiny|banded|spotted))", text)
    if not match:
        return None
    named, new_color, material = match.groups()
    color, kind = named.split()
    if new_color:
        return _rewrite(parts, named, lambda p: re.sub(rf"\b{color}\b", new_color, p), _a(f"{new_color} {kind}"))
    middle = "" if material == "matte" else f" {material}"

    def change(part: str) -> str:
        return re.sub(rf"\b{color}\b(?: (?:shiny|banded|spotted))? {kind}\b", f"{color}{middle} {kind}", part)

    return _rewrite(parts, named, change, _a(f"{color}{middle} {kind}"))


def state_instruction(thing: Thing, state: str) -> str:
    """The instruction that gives a thing a state."""
    if state == "plain":
        return f"make the {name(thing)} plain again"
    return f"give the {name(thing)} {STATE_WORDS[state].removeprefix('with ')}"
