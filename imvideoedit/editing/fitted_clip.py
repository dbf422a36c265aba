"""The one clip that an adapter was fitted to: what its header says of it, and what an edit of it need not be given."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from imvideoedit.common.errors import Note, UserError
from imvideoedit.common.files import content_hash
from imvideoedit.editing.job import Job
from imvideoedit.editing.job_inputs import MASK, Given
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.video.images import load_rgb
from imvideoedit.video.masks import WHITE, list_images

CLIP = "clip"  # of a header's training summary
FOLDER = "mask"  # of the masks, beside the adapter


@dataclass(frozen=True)
class FittedClip:
    """A clip that an adapter knows.

    Attributes:
        name: of its file.
        hash: of its file's content.
        frames: that were fitted.
        start, end: their range in seconds; None for all.
        mask_hash: of the masks, see :func:`masks_hash`.
        prompt: after the edit.
        prefix: begins each of its prompts.
    """

    name: str
    hash: str
    frames: int
    start: float | None
    end: float | None
    mask_hash: str
    prompt: str
    prefix: str = ""

    def facts(self) -> dict[str, Any]:
        """For a header's training summary."""
        return {CLIP: asdict(self)}

    @classmethod
    def of(cls, adapter: Path) -> "FittedClip | None":
        """The clip of an adapter file; None of one that was trained on many.

        Raises:
            UserError: the file is missing or damaged.
        """
        facts = read_header(adapter).training.get(CLIP)
        try:
            return None if facts is None else cls(**facts)
        except TypeError as error:
            raise UserError(f"{adapter} does not say which clip it was fitted to ({error}); fit it again") from error

    def completed(self, job: Job, adapter: Path) -> Job:
        """A job with the mask, the prompt and the prefix of the fit, where it has none; notes say what is taken.

        Raises:
            UserError: the job's video is missing or unreadable.
        """
        job.check()
        inputs = dict(job.inputs)
        if content_hash(job.input) != self.hash:
            fitted = f"{adapter} was fitted to another clip, {self.name} of {self.frames} frames"
            warnings.warn(Note(f"{fitted}; fit one to {job.input}"), stacklevel=2)
        elif MASK not in inputs:
            folder = adapter.parent / FOLDER
            inputs[MASK] = Given(str(folder))
            self._check_masks(folder)
            warnings.warn(Note(f"the mask is that of the fit, {folder}; give --mask for another"), stacklevel=2)
        prompt = job.prompt or job.instruction
        if not prompt:
            prompt = self.prompt
            warnings.warn(Note(f"the prompt is that of the fit, {prompt!r}; give --prompt for another"), stacklevel=2)
        return replace(job, inputs=inputs, prompt=f"{self.prefix}{prompt}")

    def _check_masks(self, folder: Path) -> None:
        fix = "give --mask, or fit the clip again"
        if not folder.is_dir():
            raise UserError(f"the masks of the fit are not in {folder}, beside its adapter; {fix}")
        if masks_hash(load_masks(folder)) != self.mask_hash:
            raise UserError(f"the masks in {folder} are not those of the fit; {fix}")


def load_masks(folder: Path) -> np.ndarray:
    """The masks of a fit, uint8 ``[F, H, W]`` of 0 and 255.

    Raises:
        UserError: a file is damaged, or there is none.
    """
    return np.stack([np.where(load_rgb(path)[..., 0] > WHITE // 2, np.uint8(WHITE), 0) for path in list_images(folder)])


def masks_hash(masks: Iterable[np.ndarray]) -> str:
    """16 hex digits that name masks by their shapes and pixels, uint8 ``[H, W]`` each."""
    digest = xxhash.xxh3_64()
    for mask_HW in masks:
        digest.update(f"{mask_HW.shape}".encode())
        digest.update(np.packbits(mask_HW > 0).tobytes())
    return digest.hexdigest()
