"""The tab that fits an adapter to one clip: clip, mask, edited frame, words, cost, fit, edit."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from imvideoedit.app.fit_layout import FitLayout
from imvideoedit.app.fit_queue import Fit, FitQueue, cost_of, discard
from imvideoedit.app.inputs import InputControls, painted_mask
from imvideoedit.app.queue import Limits, inspect
from imvideoedit.app.texts import fit_progress, message, problem
from imvideoedit.common.errors import UserError
from imvideoedit.editing.job import edited_name
from imvideoedit.editing.job_rows import parse_number
from imvideoedit.fitting.request import FitRequest
from imvideoedit.video.pngs import write_picture
from imvideoedit.video.reader import Clip

POLL_SECONDS = 0.25
ADAPTER = "adapter.safetensors"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
LONG: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


@dataclass(frozen=True)
class FitOptions:
    """Of all fits of a page.

    Attributes:
        backbone: an image-to-video model's name, folder or hub id.
        device: as ``--device``.
    """

    backbone: str = FitRequest.backbone
    device: str | None = None

    def arguments(self) -> list[str]:
        """Of ``imvideoedit-fit``."""
        return ["--backbone", self.backbone, *(["--device", self.device] if self.device else [])]


class FitPage:
    """The tab's events.

    Args:
        results: folder for what fits make.
    """

    def __init__(self, queue: FitQueue, layout: FitLayout, limits: Limits, options: FitOptions, results: Path) -> None:
        self._queue, self._parts, self._limits = queue, layout, limits
        self._options, self._results = options, results

    def connect(self, blocks: gr.Blocks) -> None:
        """Connect the parts to their handlers."""
        on = self._parts
        taken = [on.video, on.status, on.editor, on.original]
        on.video.upload(self.take, [on.video], taken, **QUIET)
        on.video.clear(self.empty, None, taken[1:], **QUIET)
        on.editor.clear(self.unpaint, [on.video], [on.editor], **QUIET)
        given = [on.video, on.editor, on.first, on.number, on.later, on.prompt, on.source_prompt, on.steps]
        buttons = [on.run, on.cost, on.cancel]
        on.cost.click(self.cost, given, [on.status, *buttons], **LONG)
        outputs = [on.status, on.result, on.edited, on.download, on.adapter, *buttons]
        on.run.click(self.fit, given, outputs, **LONG)
        on.cancel.click(self.cancel, None, [on.cancel], **QUIET)
        blocks.unload(self.leave)

    def take(self, path: str | None) -> tuple[Any, str, Any, Any]:
        """A clip was uploaded; it is removed if it cannot be fitted."""
        if path is None:
            return None, *self.empty()
        try:
            info = inspect(Path(path), self._limits)
            first_HWC = next(iter(Clip(path)))
        except UserError as error:
            return None, problem(str(error)), InputControls.canvas(None), gr.DownloadButton(interactive=False)
        picture = Path(path).with_name(f"{Path(path).stem}_first_frame.png")
        write_picture(Image.fromarray(first_HWC), picture, "PNG")
        said = message(f"{info.frames} frames, {info.width}×{info.height}, {info.duration:.1f} s. Now paint the mask.")
        return gr.skip(), said, InputControls.canvas(first_HWC), gr.DownloadButton(value=picture, interactive=True)

    def empty(self) -> tuple[str, Any, Any]:
        """There is no clip any more."""
        return message(""), InputControls.canvas(None), gr.DownloadButton(interactive=False)

    def unpaint(self, path: str | None) -> Any:
        """The mask was cleared, with the frame under it: the frame comes back."""
        return InputControls.canvas(None if path is None else next(iter(Clip(path))))

    async def cost(self, request: gr.Request, *given: Any) -> AsyncIterator:
        """Say what the fit would cost; it checks all that is given as well."""
        on = self._parts
        yield {on.status: message("Looking at it …"), on.cost: gr.Button(interactive=False)}
        try:
            fit = await asyncio.to_thread(self._fit, str(request.session_hash), *given)
            said = "".join(message(line) for line in await asyncio.to_thread(cost_of, fit))
        except (UserError, OSError) as error:
            said = problem(str(error))
        yield {on.status: said, on.cost: gr.Button(interactive=True)}

    async def fit(self, request: gr.Request, *given: Any) -> AsyncIterator:
        """Submit a fit and show its progress."""
        on = self._parts
        try:
            fit = await asyncio.to_thread(self._fit, str(request.session_hash), *given)
            self._queue.submit(fit)
        except (UserError, OSError) as error:
            yield {on.status: problem(str(error))}
            return
        yield {**self._buttons(busy=True), on.result: gr.Column(visible=False)}
        while not fit.finished.is_set():
            yield {on.status: fit_progress(fit, self._queue.before(fit))}
            await asyncio.sleep(POLL_SECONDS)
        end = self._buttons(busy=False)
        if fit.state == "done":
            edited = str(fit.out / edited_name(Path(given[0])))
            said = {on.status: message("Done."), on.result: gr.Column(visible=True), on.edited: edited}
            yield {**end, **said, on.download: edited, on.adapter: str(fit.out / ADAPTER)}
        elif fit.state == "cancelled":
            yield {**end, on.status: message("Cancelled; Fit and edit goes on from here.")}
        else:
            yield {**end, on.status: problem(fit.problem)}

    def cancel(self, request: gr.Request) -> Any:
        """Cancel this tab's fit."""
        self._queue.cancel(str(request.session_hash))
        return gr.Button(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The page was closed: its fit ends, and what it made goes."""
        tab = str(request.session_hash)
        self._queue.cancel(tab)
        if not self._queue.holds(tab):
            discard(self._folder(tab))

    def _folder(self, tab: str) -> Path:
        return self._results / f"fits-{tab}"

    def _fit(
        self,
        tab: str,
        path: str | None,
        painted: dict[str, Any] | None,
        first: str | None,
        number: float | None,
        later: str | None,
        prompt: str,
        source_prompt: str,
        steps: float | None,
    ) -> Fit:
        """The fit that the page describes; the same one has the same folder, so that it goes on.

        Raises:
            UserError: a step was left out, or something is beyond the limits.
        """
        if path is None:
            raise UserError("there is no clip; upload one (step 1)")
        info = inspect(Path(path), self._limits)
        mask_HW = painted_mask(painted, (info.height, info.width))
        if mask_HW is None:
            raise UserError("there is no mask; paint what may change (step 2)")
        if first is None:
            raise UserError("there is no edited first frame; upload it (step 3)")
        if not prompt.strip():
            raise UserError("there is no description; say what the clip shows after the edit (step 4)")
        out = self._folder(tab) / hashlib.sha256(path.encode()).hexdigest()[:16]
        out.mkdir(parents=True, exist_ok=True)
        mask = out.parent / f"{out.name}_mask.png"
        write_picture(Image.fromarray(mask_HW), mask, "PNG")
        arguments = [path, "--mask", str(mask), "--edited", f"0={first}", f"--prompt={prompt.strip()}"]
        if later is not None:
            arguments += ["--edited", f"{int(parse_number('the number', number or 0, whole=True))}={later}"]
        if source_prompt.strip():
            arguments.append(f"--source-prompt={source_prompt.strip()}")
        count = int(parse_number("training steps", steps or 0, whole=True))
        stages = 1 if later is None else 2
        return Fit([*arguments, "--steps", str(count), *self._options.arguments()], out, tab, stages)

    def _buttons(self, busy: bool) -> dict[Any, Any]:
        on = self._parts
        free = {each: gr.Button(interactive=not busy) for each in (on.run, on.cost)}
        return {**free, on.cancel: gr.Button(interactive=busy)}
