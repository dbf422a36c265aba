"""Cheap rules: texts that cannot be right, images that are identical or unrelated."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from data_recipes.rows import Row
from imvideoedit.common.errors import UserError
from imvideoedit.video.images import image_size
from imvideoedit.world.tasks import TASKS

COMMANDS = frozenset(
    "add adjust alter apply change convert cover delete edit erase give insert make modify move paint place put "
    "recolor remove render replace restyle set swap transform turn".split()
)
MENTIONS = re.compile(r"\b(?:edited|the edit|the original|the instruction|as requested|no longer|instead of)\b", re.I)
MEASURED_AREA = 120_000  # pixels; larger images are reduced by whole factors
CHANGED_LEVELS = 16  # of 255 in any channel, from which a pixel counts as changed
HASH_BITS = 64


@dataclass(frozen=True)
class TextRules:
    """Bounds on texts.

    Args:
        instruction_words: most words of an instruction.
        prompt_words: least and most words of a description.
        shared: least share of the source prompt's words that the edited prompt repeats, as it describes the full scene.
    """

    instruction_words: int = 40
    prompt_words: Sequence[int] = (5, 200)
    shared: float = 0.2

    def problem(self, row: Row) -> str | None:
        """Why the texts of a row cannot be right, or None."""
        words = {name: row[name].split() for name in ("instruction", "source_prompt", "edited_prompt")}
        if row["task"] not in TASKS:
            return f"task: unknown {row['task']!r}"
        if not 1 <= len(words["instruction"]) <= self.instruction_words:
            return f"instruction length: {len(words['instruction'])} words"
        least, most = self.prompt_words
        for name in ("source_prompt", "edited_prompt"):
            if not least <= len(words[name]) <= most:
                return f"{name} length: {len(words[name])} words"
        edited, source = row["edited_prompt"].casefold(), row["source_prompt"].casefold()
        if edited.split() == source.split():
            return "edited_prompt: is the source prompt"
        if words["edited_prompt"][0].casefold().strip(",.") in COMMANDS:
            return f"edited_prompt: is a command ({words['edited_prompt'][0]} …)"
        if mention := MENTIONS.search(edited):
            return f"edited_prompt: mentions the edit ({mention[0]})"
        before, after = set(source.split()), set(edited.split())
        if len(before & after) < self.shared * len(before):
            return "edited_prompt: does not describe the full scene"
        return None


@dataclass(frozen=True)
class PixelRules:
    """Bounds on a pair's images, by task: name of a measure to (least, most).

    The measures: ``ssim`` of the grey images in [-1, 1]; ``changed``, the share of pixels that differ by
    ``CHANGED_LEVELS`` or more; ``hash``, the share of the bits in which the perceptual hashes (64 bits of the DCT's low
    frequencies) differ.

    Args:
        bounds: by task; ``default`` holds for tasks and measures that are not named.
        least_side: pixels of the shorter side.

    Raises:
        UserError: an unknown task or measure, or bounds that no value satisfies.
    """

    bounds: Mapping[str, Mapping[str, Sequence[float]]]
    least_side: int = 32

    def __post_init__(self) -> None:
        for task, measures in self.bounds.items():
            if task != "default" and task not in TASKS:
                raise UserError(f"filter.pixels.bounds names the task {task!r}; use {', '.join(TASKS)} or default")
            for name, pair in measures.items():
                if name not in ("ssim", "changed", "hash") or len(pair) != 2 or pair[0] > pair[1]:
                    raise UserError(
                        f"filter.pixels.bounds.{task}.{name} is {list(pair)}; write ssim, changed, hash: [least, most]"
                    )

    def sizes(self, row: Row) -> str | None:
        """What the headers of the image files show to be wrong, or None."""
        try:
            source, target = (image_size(row[name], name) for name in ("source", "target"))
        except UserError as error:
            return f"unreadable image: {error}"
        if source != target:
            return f"sizes differ: {source[1]}x{source[0]} and {target[1]}x{target[0]}"
        if min(source) < self.least_side:
            return f"too small: {source[1]}x{source[0]}"
        return None

    def problem(self, task: str, measures: Mapping[str, float]) -> str | None:
        """Which bound the measures of a pair violate, or None."""
        if measures["changed"] == 0.0:
            return "identical images"
        for name, (least, most) in {**self.bounds.get("default", {}), **self.bounds.get(task, {})}.items():
            if not least <= measures[name] <= most:
                return f"{name} of {task}: {measures[name]:.3f} is not in [{least:g}, {most:g}]"
        return None


def pixel_measures(source_HWC: np.ndarray, target_HWC: np.ndarray) -> dict[str, float]:
    """``ssim``, ``changed`` and ``hash`` of two uint8 images ``[H, W, 3]`` of one size; see ``PixelRules``."""
    factor = max(1, math.ceil(math.sqrt(source_HWC.shape[0] * source_HWC.shape[1] / MEASURED_AREA)))
    images = [Image.fromarray(image).reduce(factor) for image in (source_HWC, target_HWC)]
    source, target = (np.asarray(image).astype(np.int16) for image in images)
    differs = np.abs(source - target) >= CHANGED_LEVELS
    greys = [np.asarray(image.convert("L")) for image in images]
    hashes = [imagehash.phash(image) for image in images]
    return {
        "ssim": round(_ssim(*greys), 4),
        "changed": round(float((differs[..., 0] | differs[..., 1] | differs[..., 2]).mean()), 4),
        "hash": round(int(hashes[0] - hashes[1]) / HASH_BITS, 4),
    }


def _ssim(source_HW: np.ndarray, target_HW: np.ndarray) -> float:
    window = min(7, *source_HW.shape)
    window -= 1 - window % 2
    # In float32, as float64 takes half as long again for digits that no bound sees.
    images = [image.astype(np.float32) for image in (source_HW, target_HW)]
    return float(structural_similarity(*images, win_size=window, data_range=255.0))
