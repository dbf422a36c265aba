"""Damage, by kind of content: bytes, texts, JSON, and tables; from bytes to bytes."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

WORDS = [
    *("lora_A", "lora_B", "lora_up", "alpha", "diff", "diff_b", "default", "weight", "bias", "dora_scale", "blocks"),
    *("attn1", "norm2", "99", "-1", "", ".", "lora_unet_", "diffusion_model.", "transformer.", "é", "\n", "head.head"),
]
VALUES = [
    *(None, True, 0, -1, 3, 2**70, 1.5, -1e308, math.nan, math.inf, "", "x", "\0", "a\nb", "\ud800", "9" * 9),
    *([], [3], [[[]]], {}, {"": 3}, {"name": "mask"}, "../..", "/" * 300),
]
TEXTS = [
    *("", "\0", "\n", "\r", "\t", " ", ",", ";", '"', '""', "'", "\\", "{", "}", "[", "]", ":", "=", "#", "%s", "${x}"),
    *("\ufeff", "\u202e", "\x1b[31m", "\x85", "\u2028", "é", "\U0001f600", "NaN", "1e999", "-0", "9" * 400, "[" * 5000),
    *("../", "/", "/dev/zero", "~", "null", "true", "None", "x" * 300, "http://127.0.0.1:9/x.png", "con", "-1", "0x10"),
]
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes anywhere, more of them near the beginning, where headers are; or cut off."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        reach = max(min(len(content), rng.choice([16, 200, 2000, len(content)])), 1)
        place = rng.randrange(reach)
        kind = rng.randrange(7)
        if kind == 0:
            del content[place:]
        elif kind == 1 and content:
            content[min(place, len(content) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2 and content:
            content[min(place, len(content) - 1)] = rng.randrange(256)
        elif kind == 3:
            size = rng.choice([2, 4, 8])
            number = rng.choice(NUMBERS) % 2 ** (8 * size)
            content[place : place + size] = number.to_bytes(size, rng.choice(["big", "little"]))
        elif kind == 4:
            del content[place : place + rng.choice([1, 2, 4, 100])]
        elif kind == 5:
            content[place:place] = content[place : place + rng.choice([1, 4, 64])]
        else:
            content[place:place] = rng.randbytes(rng.choice([1, 2, 4, 16]))
    return bytes(content)


def damaged_letters(data: bytes, rng: random.Random) -> bytes:
    """A text with parts replaced, repeated, removed or moved; at times no UTF-8 any more."""
    if rng.random() < 0.1:
        return damaged_bytes(data, rng)
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(text) + 1)
        end = min(start + rng.choice([0, 1, 1, 3, 20]), len(text))
        middle = rng.choice([rng.choice(TEXTS), text[start:end] * 2, chr(rng.choice([rng.randrange(1, 256), 0x1F600]))])
        text = text[:start] + middle + text[end:]
    return text.encode("utf-8", "surrogateescape")


def damaged_lines(data: bytes, rng: random.Random) -> bytes:
    """Lines repeated, removed, exchanged, joined, or damaged one by one."""
    lines = data.splitlines(keepends=True)
    if not lines or rng.random() < 0.3:
        return damaged_letters(data, rng)
    place = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            lines.insert(place, rng.choice(lines))
        case 1:
            del lines[place]
        case 2:
            rng.shuffle(lines)
        case 3:
            lines[place] = lines[place].rstrip(b"\n")
        case _:
            lines[place] = damaged_letters(lines[place], rng)
    return b"".join(lines)


def damaged_json(value: Any, rng: random.Random) -> Any:
    """A value of JSON with one part replaced, removed or added, at any depth."""
    if isinstance(value, dict | list) and value and rng.random() < 0.75:
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(list(keys))
        copy = value.copy()
        if rng.random() < 0.15:
            del copy[key]
        elif rng.random() < 0.1 and isinstance(copy, dict):
            copy[rng.choice(["", "surprise", *WORDS])] = rng.choice(VALUES)
        else:
            copy[key] = damaged_json(value[key], rng)
        return copy
    if isinstance(value, str) and value and rng.random() < 0.3:
        place = rng.randrange(len(value))
        return value[:place] + rng.choice(TEXTS) + value[place + rng.randint(0, 2) :]
    return rng.choice(VALUES)


def damaged_text(text: str, rng: random.Random) -> str:
    """Of JSON, changed in its values or in its letters."""
    if rng.random() < 0.8:
        try:
            return json.dumps(damaged_json(json.loads(text), rng))
        except (ValueError, RecursionError):  # damaged before
            pass
    cut = rng.randrange(len(text) + 1)
    return (
        text[:cut] + rng.choice(["", "[" * 5000, "{", ",", "NaN", "\0", "9" * 5000]) + text[cut + rng.randint(0, 3) :]
    )


def damaged_json_file(data: bytes, rng: random.Random) -> bytes:
    """As :func:`damaged_text`, or by bytes."""
    if rng.random() < 0.1:
        return damaged_bytes(data, rng)
    return damaged_text(data.decode("utf-8", "replace"), rng).encode("utf-8", "surrogatepass")


def damaged_json_lines(data: bytes, rng: random.Random) -> bytes:
    """A line's JSON, or the lines."""
    lines = data.splitlines()
    if not lines or rng.random() < 0.2:
        return damaged_lines(data, rng)
    place = rng.randrange(len(lines))
    lines[place] = damaged_json_file(lines[place], rng)
    return b"\n".join(lines)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit turned, or in one of ten the end cut off."""
    if rng.random() < 0.1:
        return data[: rng.randrange(len(data))]
    content = bytearray(data)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)
