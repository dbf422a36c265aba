"""NanoEdit-Bench: an adapter on held-out nano videos of all ten tasks, against the exact answers.

``result.json`` holds the means and their intervals, ``videos.parquet`` a row for every video of every editor,
``strips/`` and ``sheet.png`` show one edited video of each task.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.editors import Text, adapter_editor, ceiling, copy_source
from imvideoedit.evaluation.nano.exact import Editor, held_out_edits
from imvideoedit.evaluation.nano.measures import REGIONS, measure
from imvideoedit.evaluation.nano.scoring import WEIGHTS, overall, parts
from imvideoedit.evaluation.nano.summary import Row, summary
from imvideoedit.video.strips import side_by_side, write_sheet, write_strip
from imvideoedit.world.edits import Edit

TABLE_WIDTH = 110  # characters

Shown = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # instruction; source, exact answer and edited video
Keep = Callable[[Edit, np.ndarray, np.ndarray, np.ndarray], None]
"""Given an edit with its source, exact answer and edited video, each uint8 ``[F, H, W, 3]``."""


def run(
    pipeline: EditPipeline,
    out: Path | str,
    per_task: int = 25,
    frames: Sequence[int] = (17, 49),
    text: Text = "prompt",
    quality: str = "best",
    **settings: Any,
) -> dict[str, Any]:
    """Edit ``per_task`` videos of each task at every length, measure, write the files and print a table a length.

    Beside the adapter, copying the source and the autoencoder's ceiling are measured on the same videos. The pictures
    are of the adapter on the first video of each task at the first length.

    Args:
        text: as in :func:`adapter_editor`.
        quality: see :meth:`SamplingConfig.preset`.
        settings: of the pipeline, in place of what that preset makes of the adapter's own.

    Returns:
        What is in ``result.json``: the adapter's :func:`summary`, with ``copy`` and ``ceiling`` beside it.

    Raises:
        UserError: the adapter's backbone is not the nano one, or a number is out of its range.
    """
    _check(pipeline, per_task, frames)
    config = pipeline.config.preset(quality).override(**settings)
    editors = {
        "adapter": adapter_editor(pipeline, text, **vars(config)),
        "copy": copy_source,
        "ceiling": ceiling(pipeline.backbone),
    }
    edits = held_out_edits(per_task)
    shown: dict[str, Shown] = {}
    collect, pictured = keep_first(shown), ("adapter", frames[0])
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"{len(edits)} held-out videos", total=len(edits) * len(frames) * len(editors))
        advance = partial(progress.advance, bar)
        rows = [
            {"editor": name, **row}
            for name, editor in editors.items()
            for length in frames
            for row in examine(editor, edits, length, advance, collect if (name, length) == pictured else None)
        ]
    result = {**summary(_of(rows, "adapter")), **{name: summary(_of(rows, name)) for name in ("copy", "ceiling")}}
    write_pictures(shown, Path(out))
    write(result, rows, Path(out))
    show(result, [int(length) for length in frames])
    return result


def _check(pipeline: EditPipeline, per_task: int, frames: Sequence[int]) -> None:
    if not pipeline.backbone.is_nano:
        raise UserError(
            f"the nano suite needs an adapter of the nano backbone; this one is of {pipeline.backbone.name}"
        )
    if per_task < 1 or not frames or min(frames) < 1:
        raise UserError(f"per_task and suite.frames must be at least 1; got {per_task} and {list(frames)}")


def examine(
    editor: Editor,
    edits: Iterable[Edit],
    frames: int,
    advance: Callable[[], None] | None = None,
    keep: Keep | None = None,
) -> list[Row]:
    """A row a video: ``task``, ``video`` (its number), ``frames``, ``seconds``, all measures, parts and ``overall``.

    Args:
        advance: called after every video.
        keep: handed every edited video.
    """
    rows = []
    for number, edit in enumerate(edits):
        source, exact, mask = edit.render(frames)
        began = time.perf_counter()
        edited = editor(source, edit)
        seconds = time.perf_counter() - began
        measures = measure(edited, exact, source, mask, edit.target)
        points = parts(measures)
        place = {"task": edit.task, "video": number, "frames": frames, "seconds": seconds}
        rows.append({**place, **measures, **points, "overall": overall(points)})
        if keep is not None:
            keep(edit, source, exact, edited)
        if advance is not None:
            advance()
    return rows


def keep_first(shown: dict[str, Shown]) -> Keep:
    """Puts the first video of every task into ``shown``."""

    def keep(edit: Edit, source: np.ndarray, exact: np.ndarray, edited: np.ndarray) -> None:
        shown.setdefault(edit.task, (edit.instruction, source, exact, edited))

    return keep


def write_pictures(shown: dict[str, Shown], out: Path) -> None:
    """Write ``strips/<task>.png`` for every task and all of them as one ``sheet.png``."""
    sheet = {}
    for task, (instruction, source, exact, edited) in shown.items():
        write_strip(out / "strips" / f"{task}.png", {"source": source, "exact answer": exact, "edited": edited})
        sheet[f"{instruction} (source, exact answer, edited)"] = side_by_side(source, exact, edited)
    write_sheet(out / "sheet.png", sheet)


def _of(rows: Sequence[Row], editor: str) -> list[Row]:
    return [row for row in rows if row["editor"] == editor]


def write(result: dict[str, Any], rows: Sequence[Row], out: Path) -> None:
    """Write ``result.json`` and ``videos.parquet`` into a folder."""
    with replacing(out / "videos.parquet") as path:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    with replacing(out / "result.json") as path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def show(result: dict[str, Any], frames: Sequence[int]) -> None:
    """Print a table a length: score, parts and PSNR of the adapter, of copying and of the ceiling."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)  # where the numbers go to a file or a narrow window, too
    for length in frames:
        editors = {"adapter": result, "copy": result["copy"], "ceiling": result["ceiling"]}
        numbers = {name: summed["lengths"][str(length)] for name, summed in editors.items()}
        title = f"{numbers['adapter']['videos']} held-out videos, {length} frames (PSNR in dB)"
        table = Table("", "overall", "95 %", *WEIGHTS, *REGIONS, title=title)
        for name, row in numbers.items():
            scores = [row["parts"][part] for part in WEIGHTS] + [row[f"{region}_psnr"] for region in REGIONS]
            low, high = row["interval"]
            table.add_row(name, f"{row['overall']:.1f}", f"{low:.1f}-{high:.1f}", *map(_cell, scores))
        console.print(table)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
