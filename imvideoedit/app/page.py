"""The page: a video and an instruction in; progress, comparison, download and history out."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from imvideoedit.app.frames import frame_pair
from imvideoedit.app.layout import SETTINGS, Layout
from imvideoedit.app.live import Edit
from imvideoedit.app.queue import EditQueue, TooLong, inspect, without_folders
from imvideoedit.app.samples import SAMPLES
from imvideoedit.app.texts import SHOW_PROBLEM, SHOW_STATUS, message, problem, progress
from imvideoedit.common.errors import UserError
from imvideoedit.editing.job import Job
from imvideoedit.editing.job_rows import parse_number
from imvideoedit.video.display import enlarged
from imvideoedit.video.reader import Clip

POLL_SECONDS = 0.15
QUEUED: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Short events skip gradio's queue, which loses one that arrives just as the stream of others closes.
QUIET: dict[str, Any] = {**QUEUED, "queue": False}


class Page:
    """The page's events.

    Args:
        samples: files of the sample clips.
        results: folder for results.
    """

    def __init__(self, queue: EditQueue, layout: Layout, samples: list[Path], results: Path) -> None:
        self._queue, self._parts, self._samples, self._results = queue, layout, samples, results

    def connect(self, blocks: gr.Blocks) -> None:
        """Connect the parts to their handlers."""
        on = self._parts
        editor = on.inputs.editor
        taken = [on.video, on.status, on.source_prompt, editor]
        on.video.upload(self.take, [on.video], taken, **QUIET).then(None, js=SHOW_PROBLEM)
        on.video.clear(lambda: on.inputs.canvas(None), None, [editor], **QUIET)
        editor.clear(self.unpaint, [on.video], [editor], **QUIET)
        on.gallery.select(self.pick, None, [*taken, on.instruction, on.examples], **QUIET)
        on.quality.input(self.set_quality, [on.quality], on.settings, **QUIET)
        on.examples.click(lambda row: row[0], [on.examples], [on.instruction], **QUIET)
        inputs = [on.video, on.instruction, on.source_prompt, on.quality, on.seed, on.start, on.end, *on.settings]
        inputs += on.inputs.parts
        outputs = [on.status, on.preview, on.result, on.slider, on.frame, on.both, on.download]
        outputs += [on.prompt, on.history, on.shown, on.run, on.again, on.cancel]
        editing: dict[str, Any] = {**QUEUED, "concurrency_limit": None}
        fresh = [on.browser, gr.State(None), *inputs]
        gr.on([on.run.click, on.instruction.submit], self.edit, fresh, outputs, **editing)
        gr.on([on.run.click, on.again.click], None, js=SHOW_STATUS)
        on.again.click(self.edit, [on.browser, on.prompt, *inputs], outputs, **editing)
        on.cancel.click(self.cancel, None, [on.cancel], **QUIET)
        on.frame.input(self.frame, [on.shown, on.frame], [on.slider, on.status], trigger_mode="always_last", **QUIET)
        on.history.select(self.show_again, [on.browser], outputs, **QUIET)
        blocks.load(self.welcome, [on.browser], [on.browser, on.history], **QUIET)
        blocks.unload(self.leave)

    def take(self, path: str | None) -> tuple[Any, str, str, Any]:
        """A video was uploaded; it is removed if it cannot be edited at all."""
        canvas = self._parts.inputs.canvas
        if path is None:
            return None, message(""), "", canvas(None)
        try:
            info = inspect(Path(path), self._queue.limits)
            said = message(f"{info.frames} frames, {info.width}×{info.height}, {info.duration:.1f} s")
        except UserError as error:
            said = problem(str(error))
            if not isinstance(error, TooLong):
                return None, said, "", canvas(None)
        return gr.skip(), said, "", canvas(next(iter(Clip(path))))

    def pick(self, event: gr.SelectData) -> tuple[str, str, str, Any, str, Any]:
        """A sample was clicked."""
        sample, path = SAMPLES[event.index], str(self._samples[event.index])
        examples = gr.Dataset(samples=[[text] for text in sample.instructions])
        canvas = self._parts.inputs.canvas(next(iter(Clip(path))))
        return path, message("A sample."), sample.prompt, canvas, sample.instructions[0], examples

    def unpaint(self, path: str | None) -> Any:
        """The mask was cleared, with the frame under it: the frame comes back."""
        return self._parts.inputs.canvas(None if path is None else next(iter(Clip(path))))

    def set_quality(self, quality: str) -> list[float]:
        """The settings of a quality."""
        config = self._queue.pipeline.config.preset(quality)
        return [getattr(config, name) for name in SETTINGS]

    async def edit(self, request: gr.Request, browser: str | None, prompt: str | None, *inputs: Any) -> AsyncIterator:
        """Submit an edit and show its progress; without ``prompt``, one is made from the instruction."""
        tab = str(request.session_hash)
        try:
            job = await asyncio.to_thread(self._job, prompt, *inputs)
            edit = Edit(job, tab, browser or tab)
            self._queue.submit(edit)
        except (UserError, OSError) as error:
            yield {self._parts.status: problem(str(error))}
            return
        yield {**self._buttons(busy=True), self._parts.result: gr.Column(visible=False)}
        shown = None
        while not edit.finished.is_set():
            changes: dict[Any, Any] = {self._parts.status: progress(edit, self._queue.before(edit))}
            if edit.preview is not shown and edit.preview is not None:
                shown = edit.preview
                changes[self._parts.preview] = gr.Image(enlarged(shown), visible=True)
            yield changes
            await asyncio.sleep(POLL_SECONDS)
        end = {**self._buttons(busy=False), self._parts.preview: gr.Image(None, visible=False)}
        if edit.state != "done":
            yield {**end, self._parts.status: problem(edit.problem) if edit.problem else message("Cancelled.")}
            return
        history = await asyncio.to_thread(self._history, edit.browser)
        yield {**end, **await asyncio.to_thread(self._show, edit), self._parts.history: history}

    def cancel(self, request: gr.Request) -> Any:
        """Cancel this tab's edit."""
        self._queue.cancel(str(request.session_hash))
        return gr.Button(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The tab was closed."""
        self._queue.cancel(str(request.session_hash))

    def frame(self, shown: Edit | None, index: float) -> tuple[Any, Any]:
        """The slider was moved: another frame of the result."""
        if shown is None:
            return gr.skip(), gr.skip()
        try:
            return frame_pair(shown.job, int(index)), gr.skip()
        except UserError as error:
            return gr.skip(), problem(without_folders(error, shown.job))

    def show_again(self, browser: str | None, event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
        """A result of the history was clicked."""
        edits = self._queue.history(browser or str(request.session_hash))
        if event.index >= len(edits):
            return {self._parts.status: problem("that result is not kept any more")}
        try:
            return self._show(edits[event.index])
        except UserError as error:
            return {self._parts.status: problem(without_folders(error, edits[event.index].job))}

    def welcome(self, browser: str | None) -> tuple[str, Any]:
        """The page was opened: the browser's id, and its history."""
        browser = browser or secrets.token_hex(16)
        return browser, self._history(browser)

    def _job(self, prompt: str | None, path: str | None, instruction: str, source_prompt: str, *settings: Any) -> Job:
        """The job that the page describes.

        Raises:
            UserError: something is missing, out of its range or beyond the limits.
        """
        quality, seed, start, end, *values = settings
        values, controls = values[: len(SETTINGS)], values[len(SETTINGS) :]
        if path is None:
            raise UserError("there is no video; upload one or click a sample")
        if not instruction.strip():
            raise UserError("there is no instruction; say what to change")
        if prompt is not None and not prompt.strip():
            raise UserError("the prompt is empty; describe the video as it should be, or press Edit")
        config = self._queue.pipeline.config.preset(quality)
        boxes = zip(SETTINGS, values, strict=True)
        given = {name: number for name, number in boxes if number not in (None, getattr(config, name))}
        config.override(**given)
        start, end = start or None, end or None
        info = inspect(Path(path), self._queue.limits, start, end)
        output = self._results / uuid.uuid4().hex / f"{Path(path).stem}_edited.mp4"
        output.parent.mkdir(parents=True)
        inputs = self._parts.inputs.collect(controls, (info.height, info.width), output.parent)
        self._queue.pipeline.check_inputs(inputs)
        return Job(
            Path(path),
            instruction.strip(),
            output,
            prompt=prompt,
            source_prompt=source_prompt.strip() or None,
            quality=quality,
            start=start,
            end=end,
            seed=int(parse_number("seed", seed or 0, whole=True)),
            settings=given,
            inputs=inputs,
        )

    def _buttons(self, busy: bool) -> dict[Any, Any]:
        on = self._parts
        return {
            on.run: gr.Button(interactive=not busy),
            on.again: gr.Button(interactive=not busy),
            on.cancel: gr.Button(interactive=busy),
        }

    def _show(self, edit: Edit) -> dict[Any, Any]:
        """Show a result.

        Raises:
            UserError: a file is gone.
        """
        on, job = self._parts, edit.job
        assert edit.prompts is not None
        frames = len(Clip(job.output))
        middle = frames // 2
        note = "".join(f" Note: {note}." for note in edit.notes)
        return {
            on.status: message(f"“{job.instruction}”: {frames} frames, done.{note}"),
            on.result: gr.Column(visible=True),
            on.slider: frame_pair(job, middle),
            on.frame: gr.Slider(0, max(frames - 1, 1), middle, interactive=frames > 1),
            on.both: str(edit.comparison),
            on.download: str(job.output),
            on.prompt: edit.prompts.prompt,
            on.shown: edit,
        }

    def _history(self, browser: str) -> Any:
        """The history, the latest result first."""
        edits = self._queue.history(browser)
        images = [(edit.thumbnail, edit.job.instruction) for edit in edits]
        return gr.Gallery(images, visible=bool(images))
