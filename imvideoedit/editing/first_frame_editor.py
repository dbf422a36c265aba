"""Edits the source's first frame by another adapter, for one that needs it edited."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.prompts import expand
from imvideoedit.methods.adapter_header import read_header


class FirstFrameEditor:
    """Edits first frames by an adapter, which is loaded when the first one is asked for.

    Args:
        adapter: of the editor; None where there is none, so that every request is refused.
        how: ``device``, ``memory`` and ``attention`` of ``EditPipeline.from_pretrained``.
    """

    def __init__(self, adapter: Path | None, **how: Any) -> None:
        self.adapter, self._how = adapter, how
        self._pipeline: EditPipeline | None = None

    def check(self, names: Sequence[str], title: str) -> None:
        """See that frames can be made.

        Args:
            names: of the inputs to be made; none is always possible.
            title: of the adapter that needs them.

        Raises:
            UserError: there is no editor, or it needs inputs itself.
        """
        if not names:
            return
        give = f"give {option(names[0])} FILE, or --first-frame-adapter FILE, an adapter that edits images"
        needs = f"{title} needs the input {', '.join(names)} (image), which is not given"
        if self.adapter is None:
            raise UserError(f"{needs}, and the bundled adapter, which could make it, is of another backbone; {give}")
        inputs = [each["name"] for each in read_header(self.adapter).inputs if each["required"]]
        if inputs:
            raise UserError(f"{needs}, and {self.adapter}, which shall make it, needs {', '.join(inputs)}; {give}")

    def make(self, frame_HWC: np.ndarray, prompt: str, seed: int, source_prompt: str | None = None) -> np.ndarray:
        """The edited frame, uint8 ``[H, W, 3]`` like the given one.

        Args:
            prompt: what the adapter that needs the frame reads: a full description after the edit, or the instruction.
            source_prompt: full description before the edit, which helps to make one of the other.

        Raises:
            UserError: the adapter or its backbone cannot be loaded.
        """
        assert self.adapter is not None
        if self._pipeline is None:
            self._pipeline = EditPipeline.from_pretrained(adapter=self.adapter, **self._how)
        pipeline = self._pipeline
        prompt = expand(prompt, source_prompt=source_prompt, nano=pipeline.has_grammar).prompt
        config = pipeline.fit_memory(pipeline.config, *frame_HWC.shape[:2])
        return next(pipeline.stream(lambda: [frame_HWC], prompt, config, seed))

    def note(self, names: Sequence[str]) -> str:
        """One line for the user about the frames that are made."""
        return f"the first frame is made by {self.adapter}; give {option(names[0])} for another"


def option(name: str) -> str:
    """The command line's option of an input."""
    return f"--{name.replace('_', '-')}"
