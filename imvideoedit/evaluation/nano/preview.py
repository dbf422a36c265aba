"""Previews of a training run: edits of held-out nano videos by the pipeline that users run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from PIL import Image

from imvideoedit.common.files import replacing
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.evaluation.nano.editors import input_options
from imvideoedit.evaluation.nano.exact import held_out_edits
from imvideoedit.nano.inputs import offered
from imvideoedit.video.pngs import write_picture
from imvideoedit.video.reader import write_video
from imvideoedit.video.strips import side_by_side
from imvideoedit.world.edits import Edit
from imvideoedit.world.tasks import TASKS

ENLARGED = 2  # 64-pixel videos are hard to see
FPS = 8


class NanoPreview(Callback):
    """Edits held-out videos every N optimizer steps, with the moving average of the weights.

    Writes ``step-<N>.mp4`` (a row per video; source, exact answer and edit side by side) and ``step-<N>.png`` (its
    first, middle and last frame).

    Args:
        folder: for the previews.
        every_n_steps: optimizer steps between previews, at least 1.
        sampling: of the edits.
        tasks: one video of each is shown.
        frames: of each video; training has seen single frames only.
        seed: of the videos.

    Raises:
        UserError: when training starts, if the method needs an input that the nano world has not.
    """

    def __init__(
        self,
        folder: Path | str,
        every_n_steps: int,
        sampling: SamplingConfig,
        tasks: Sequence[str] = TASKS[:4],
        frames: int = 17,
        seed: int = 2026,
    ) -> None:
        self.folder, self.every_n_steps, self.sampling, self.frames = Path(folder), every_n_steps, sampling, frames
        self.edits = held_out_edits(1, seed, tuple(tasks))
        self.latest = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: Any = pl_module
        offered(task.method.inputs)  # fails here, before any step, if the nano world lacks an input

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        task: Any = pl_module
        step = trainer.global_step
        if step % self.every_n_steps or step == self.latest or not trainer.is_global_zero:
            return
        self.latest = step
        pipeline = EditPipeline(task.backbone, task.method, self.sampling)
        with task.averaged():
            rows = [preview_row(pipeline, edit, self.frames) for edit in self.edits]
        write_preview(self.folder / f"step-{step:06d}", np.concatenate(rows, axis=1))


def preview_row(pipeline: EditPipeline, edit: Edit, frames: int) -> np.ndarray:
    """Source, exact answer and edit side by side: uint8 ``[F, H, 3W, 3]``."""
    source, exact, _ = edit.render(frames)
    options = input_options(pipeline, edit, source)
    edited = pipeline(source, edit.instruction, source_prompt=edit.source_prompt, **options).frames
    return side_by_side(source, exact, edited)


def write_preview(stem: Path, video_FHWC: np.ndarray) -> None:
    """Write ``stem.mp4`` and ``stem.png`` (first, middle and last frame side by side), enlarged without smoothing."""
    large = video_FHWC.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    write_video(stem.with_suffix(".mp4"), large, FPS)
    shown = sorted({0, len(large) // 2, len(large) - 1})
    with replacing(stem.with_suffix(".png")) as temporary:
        sheet = Image.fromarray(np.concatenate([large[i] for i in shown], axis=1))
        write_picture(sheet, temporary, "PNG")
