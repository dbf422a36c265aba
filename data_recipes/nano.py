"""The nano world as a recipe's writer, painter and judge: grammar, renderer and exact answer."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_recipes.drafting import Writer
from data_recipes.filtering import Judge, Judgement
from data_recipes.plan import SceneSpec
from data_recipes.rows import CRITERIA, Row, digest, held, prompt_row
from data_recipes.synthesis import ImagePair, Painter
from imvideoedit.evaluation.nano.exact import region_psnr
from imvideoedit.world import grammar, scenes
from imvideoedit.world.edits import Edit, sample_edit

PSNR_RANGE = (15.0, 35.0)  # dB that score 0 and 10
VERSION = 1  # raise it when scenes, edits or the renderer change their output


def _to_json(edit: Edit) -> str:
    return json.dumps({"source": dataclasses.asdict(edit.source), "target": dataclasses.asdict(edit.target)})


def _from_json(row: Row) -> Edit:
    origin = held(row, "origin")
    return Edit(row["task"], _scene(origin["source"]), _scene(origin["target"]), row["instruction"])


def _scene(fields: dict[str, Any]) -> scenes.Scene:
    return scenes.Scene(**fields | {"things": tuple(scenes.Thing(**thing) for thing in fields["things"])})


class NanoWriter(Writer):
    """Random exact edits of the training compositions, described by the grammar."""

    models = {"prompts": "nano grammar"}

    def identity(self) -> Any:
        return ["nano", VERSION]

    def write(self, shard: int, scenes: Sequence[SceneSpec]) -> list[Row]:
        return [self._row(scene, task, place) for scene in scenes for place, task in enumerate(scene.tasks)]

    def _row(self, scene: SceneSpec, task: str, place: int) -> Row:
        edit = sample_edit(np.random.default_rng((*scene.seed, place)), "train", task)
        origin, name = _to_json(edit), digest(dataclasses.asdict(edit.source))
        texts = {"source_prompt": edit.source_prompt, "edited_prompt": edit.edited_prompt}
        texts |= {"id": digest(origin, edit.instruction), "instruction": edit.instruction}
        return prompt_row(name, f"{edit.source.background} {edit.source.pattern}", task, scene.size, origin, **texts)


class NanoPainter(Painter):
    """The renderer."""

    models = {"source images": "nano renderer", "edited images": "nano renderer"}

    def identity(self) -> Any:
        return ["nano", VERSION]

    def paint(self, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[ImagePair | str]:
        videos = [_from_json(row).render(1, (row["height"], row["width"])) for row in rows]
        return [(source[0], target[0]) for source, target, _ in videos]


class NanoJudge(Judge):
    """Compares images with the exact answer, and texts with the grammar's.

    Faithfulness is the PSNR of the region that the edit changes, preservation that of the rest, and quality that of the
    frame, with 15 dB as 0 and 35 dB as 10. Faithfulness is 0 where the instruction does not turn the source prompt into
    the edited one.
    """

    models = {"judge": "exact answer of the nano world"}

    def identity(self) -> Any:
        return ["nano", VERSION, PSNR_RANGE]

    def judge(self, rows: Sequence[Row], images: Sequence[ImagePair]) -> list[Judgement]:
        return [self._judge(row, *pair) for row, pair in zip(rows, images, strict=True)]

    def _judge(self, row: Row, source_HWC: np.ndarray, target_HWC: np.ndarray) -> Judgement:
        source, exact, mask = _from_json(row).render(1, source_HWC.shape[:2])
        measured = region_psnr(target_HWC[None], exact, mask)
        shown = region_psnr(source_HWC[None], source, mask)["frame_psnr"]
        points = [_points(measured["changed_psnr"]), _points(measured["frame_psnr"]), _points(measured["kept_psnr"])]
        comment = f"changed {measured['changed_psnr']:.1f}, kept {measured['kept_psnr']:.1f}, source {shown:.1f} dB"
        if grammar.apply_instruction(row["instruction"], row["source_prompt"]) != row["edited_prompt"]:
            points[0], comment = 0.0, "the instruction does not lead to the edited prompt"
        points[1] = min(points[1], _points(shown))
        return Judgement(dict(zip(CRITERIA, points, strict=True)), comment)


def _points(psnr: float) -> float:
    if np.isnan(psnr):  # no such region
        return 10.0
    low, high = PSNR_RANGE
    return round(float(np.clip(10 * (psnr - low) / (high - low), 0, 10)), 2)
