"""What is to be edited, and how."""

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import check_name, content_hash
from imvideoedit.editing.job_folders import is_still
from imvideoedit.editing.job_inputs import Given, as_given, check_files, describe_inputs
from imvideoedit.editing.job_rows import check_text
from imvideoedit.video.encoder import choose_codec
from imvideoedit.video.reader import Clip
from imvideoedit.video.stills import check_still, names_still

TEXTS = ("instruction", "prompt", "source_prompt", "expand", "expand_model", "codec")
LEAST_SEED, MOST_SEED = -(2**63), 2**64 - 1  # that torch's generators take


@dataclass(frozen=True)
class Job:
    """One edit of one file.

    Attributes:
        input, output: files.
        instruction: what to change.
        prompt, source_prompt: full descriptions after and before the edit; None where there is none.
        expand: how the prompt is made from the instruction, see :func:`imvideoedit.editing.prompts.expand`.
        expand_model: folder or hub id of the model for ``expand: local``.
        quality: see :meth:`SamplingConfig.preset`.
        start, end: range of the input to edit, in seconds; all of it where None.
        fps: frames per second of the output; the input's own times where None.
        codec: of the output, see ``VideoWriter``; by its name where None.
        side_by_side: also write source and edit side by side.
        seed: of the noise; of 64 bits.
        settings: values of :class:`SamplingConfig` that override the adapter's own.
        inputs: what the adapter's method takes besides, by name: files, folders, texts, a mask's ``box:x,y,w,h``.

    Raises:
        UserError: a text or a file's name is none that can be written, or the seed is out of its range.
    """

    input: Path
    instruction: str
    output: Path
    prompt: str | None = None
    source_prompt: str | None = None
    expand: str | None = None
    expand_model: str | None = None
    quality: str = "best"
    start: float | None = None
    end: float | None = None
    fps: float | None = None
    codec: str | None = None
    side_by_side: bool = False
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Given | Path | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in TEXTS:
            check_text(name, getattr(self, name) or "")
        for path in (self.input, *self.files):
            check_name(path)
        if not LEAST_SEED <= self.seed <= MOST_SEED:
            raise UserError(f"seed is {self.seed}; it must be a whole number of 64 bits, from -2^63 to 2^64 - 1")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are written."""
        return (self.output, side_by_side_path(self.output)) if self.side_by_side else (self.output,)

    @property
    def given(self) -> dict[str, Given]:
        """The inputs, checked as far as their texts show; files' names in them are relative to the current folder.

        Raises:
            UserError: an input is none.
        """
        return as_given(self.inputs)

    def facts(self) -> dict[str, Any]:
        """All that decides the result except the model, JSON-able and without the folders' names.

        Files count by their contents; ``input``, the video's name, says which it was and does not count.

        Raises:
            UserError: the input or a file of the inputs is missing or unreadable.
        """
        self._check_input()
        try:
            content = f"xxh3 {content_hash(self.input)}"
        except OSError as error:
            raise UserError(f"cannot read {self.input}: {error.strerror}; check its permissions") from error
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("input", "output", "inputs")}
        return {"input": self.input.name, "input_hash": content, **own, "inputs": describe_inputs(self.given)}

    def open_clip(self) -> Clip:
        """The part of the input that is edited.

        Raises:
            UserError: what :meth:`check` finds; the input cannot be read, the range is empty, or the output is a
                picture that cannot hold its frames.
        """
        self.check()
        clip = Clip(self.input, self.start, self.end, self.fps)
        if names_still(self.output):
            check_still(self.output, clip.info.frames, (clip.info.height, clip.info.width))
        return clip

    def check(self) -> None:
        """See that the files are there and fit each other, without reading them.

        Raises:
            UserError: the input is missing or empty, the output is the input, or its name does not fit the codec; a
                file of ``inputs`` is missing or is the output.
        """
        self._check_input()
        if self.input.stat().st_size == 0:
            raise UserError(f"{self.input} is empty; give a video")
        for path in self.files:
            if path.resolve() == self.input.resolve():
                raise UserError(f"the output {path} is the input; give another output")
            check_files(self.given, path)
        # A list's codec is for its videos.
        choose_codec(self.output, None if names_still(self.output) else self.codec)

    def _check_input(self) -> None:
        if not os.path.isfile(self.input):  # unlike pathlib, takes names of any length
            raise UserError(f"there is no video at {self.input}; check the path")


def side_by_side_path(output: Path) -> Path:
    """The file with source and edit side by side."""
    return output.with_name(f"{output.stem}_side_by_side{output.suffix}") if output.name else output


def edited_name(path: Path) -> str:
    """The output's name where none is given."""
    return f"{path.stem}_edited{'.png' if is_still(path) else '.mp4'}"
