"""What a fit is asked for, and what of it can be seen to be wrong before a model is loaded."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import check_name, content_hash
from imvideoedit.editing.job_inputs import Given, describe_inputs
from imvideoedit.video.images import load_rgb
from imvideoedit.video.masks import check_aspect
from imvideoedit.video.reader import Clip

STEPS = 100  # of each stage, as in the paper
MODES = ("full", "low-cost")
TRACKERS = ("auto", "flow", "sam2")
OFFLOADS = ("auto", "on", "off")
FIRST = 0  # the frame that every edit is given


@dataclass(frozen=True)
class FitRequest:
    """A fit of one clip.

    Attributes:
        clip: the video.
        out: folder of all that is made.
        mask: as ``imvideoedit-edit --mask`` takes it; a still or a box is that of the first frame, and is followed.
        edited: images of edited frames, by their numbers in the clip; the first frame is always among them.
        prompt: describes the clip after the edit; None: a model behind the configured endpoint describes each frame.
        source_prompt: describes the clip as it is; None: likewise, or else no text.
        start, end: range of the clip, in seconds.
        backbone: name, folder or hub id of an image-to-video model.
        mode: ``full`` trains on the whole clip at once, ``low-cost`` on overlapping parts of 13 frames in turn.
        target, rank: of the method.
        steps: of each stage.
        rate: the learning rate; None for that of the model.
        seed: of all that is random.
        tracker, sam2: how a still mask is followed, see :func:`imvideoedit.fitting.masks.make_mask`.
        eight_bit: the optimizer's moments have 8 bits.
        checkpointing: blocks are recomputed in the backward pass.
        offload: blocks are on the GPU one by one; ``auto`` where the estimate says that all do not fit.
        checkpoint_every: steps between the states from which a stage goes on where it was stopped.

    Raises:
        UserError: a value is out of its range.
    """

    clip: Path
    out: Path
    mask: str
    edited: Mapping[int, Path]
    prompt: str | None = None
    source_prompt: str | None = None
    start: float | None = None
    end: float | None = None
    backbone: str = "nano_image_to_video"
    mode: str = "full"
    target: Literal["paper", "release"] = "paper"
    rank: int = 16
    steps: int = STEPS
    rate: float | None = None
    seed: int = 0
    tracker: str = "auto"
    sam2: str | None = None
    eight_bit: bool = False
    checkpointing: bool = True
    offload: str = "auto"
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        chosen = ("mode", self.mode, MODES), ("tracker", self.tracker, TRACKERS), ("offload", self.offload, OFFLOADS)
        for name, value, choices in chosen:
            if value not in choices:
                raise UserError(f"--{name} is {value!r}; choose {' or '.join(choices)}")
        if self.offload == "on" and not self.checkpointing:
            raise UserError("--offload on recomputes blocks; leave out --no-checkpointing, or give --offload off")
        if (
            min(self.steps, self.checkpoint_every) < 1
            or not (self.rate is None or 0 < self.rate < 1)
            or not 0 <= self.seed < 2**32
        ):
            raise UserError(
                f"--steps is {self.steps}, --checkpoint-every {self.checkpoint_every}, --rate {self.rate} and --seed "
                f"{self.seed}; steps are at least 1, the rate is between 0 and 1, the seed a whole number of 32 bits"
            )
        for path in (self.out, self.clip, *self.edited.values()):
            check_name(path)

    def open_clip(self) -> Clip:
        """The part of the clip that is fitted.

        Raises:
            UserError: it is missing or cannot be read, the range is empty, or it has a single frame.
        """
        if not os.path.isfile(self.clip):
            raise UserError(f"there is no video at {self.clip}; check the path")
        clip = Clip(self.clip, self.start, self.end)
        if len(clip) < 2:
            raise UserError(f"{self.clip} has a single frame to fit; give a video, or a longer range")
        return clip

    def read_edited(self, clip: Clip) -> dict[int, np.ndarray]:
        """The edited frames by their numbers, uint8 ``[H, W, 3]``.

        Raises:
            UserError: one cannot be read, is beyond the clip or of another shape than its frames; or the first one is
                not among them.
        """
        size, found = (clip.info.height, clip.info.width), {}
        for number, path in sorted(self.edited.items()):
            if not 0 <= number < len(clip):
                raise UserError(
                    f"--edited {number}={path} is beyond the clip, whose frames are 0 to {len(clip) - 1}; correct the "
                    "number"
                )
            found[number] = load_rgb(path)
            check_aspect(f"the edited frame {path}", found[number].shape[:2], size)
        if FIRST not in found:
            raise UserError("the edit begins at the first frame, which is not given edited; give --edited 0=FILE")
        return found

    def contents(self) -> dict[str, Any]:
        """What the files of the request contain, JSON-able, by what they are.

        Raises:
            UserError: one is missing or unreadable.
        """
        edited = describe_inputs({f"edited_{number}": Given(str(path)) for number, path in self.edited.items()})
        mask = describe_inputs({"mask": Given(self.mask)})["mask"]
        try:
            clip = content_hash(self.clip)
        except OSError as error:
            raise UserError(f"cannot read {self.clip}: {error.strerror}; check its permissions") from error
        hashes = {name.removeprefix("edited_"): text.rpartition(" ")[2] for name, text in edited.items()}
        return {"clip": clip, "start": self.start, "end": self.end, "mask": mask, "edited": hashes}


def parse_edited(texts: list[str]) -> dict[int, Path]:
    """``NUMBER=FILE`` each, by the number.

    Raises:
        UserError: one is no such text, its file is missing, or a number is there twice.
    """
    found: dict[int, Path] = {}
    for text in texts:
        match = re.fullmatch(r"(\d{1,9})=(.+)", text, re.DOTALL)
        if not match:
            raise UserError(f"--edited {text} names no frame; give --edited NUMBER=FILE, such as --edited 0=frame.png")
        number, path = int(match[1]), Path(match[2])
        if number in found:
            raise UserError(f"--edited {number} is given twice; leave one out")
        if not os.path.isfile(path):
            raise UserError(f"there is no image at {path}; check --edited {number}")
        found[number] = path
    return found
