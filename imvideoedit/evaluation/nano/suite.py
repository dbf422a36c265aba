"""NanoEdit-Bench: editors on held-out nano videos of all ten tasks, against the exact answers.

``result.json`` holds means and intervals, ``videos.parquet`` a row for every video of every editor, ``strips/`` and
``sheet.png`` show one edited video of each task.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from imvideoedit.common.cores import on_all_cores
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.json_file import write_json
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.editors import Text, adapter_editor, ceiling, copy_source, given_inputs
from imvideoedit.evaluation.nano.exact import HELD_OUT, Editor, held_out_edits
from imvideoedit.evaluation.nano.measures import REGIONS, measure
from imvideoedit.evaluation.nano.scoring import WEIGHTS, overall, parts
from imvideoedit.evaluation.nano.summary import VideoScores, summarize
from imvideoedit.video.strips import side_by_side, write_sheet, write_strip
from imvideoedit.world.edits import Edit

TABLE_WIDTH = 110  # characters

Examples = dict[str, tuple[str, np.ndarray, np.ndarray, np.ndarray]]
"""Task -> instruction, source, exact answer and edited video, each uint8 ``[F, H, W, 3]``."""


def run_nano_suite(
    pipeline: EditPipeline,
    out: Path | str,
    per_task: int = 25,
    frames: Sequence[int] = (17, 49),
    text: Text = "prompt",
    quality: str = "best",
    seed: int = HELD_OUT,
    **settings: Any,
) -> dict[str, Any]:
    """Edit ``per_task`` videos of each task at every length, measure, write the files and print a table per length.

    Copying the source and the autoencoder's ceiling are measured on the same videos. Strips show the adapter on the
    first video of each task at the first length.

    Args:
        text: as in :func:`adapter_editor`.
        quality: see :meth:`SamplingConfig.preset`.
        seed: of the videos, at least 0; other ones make a copy of the benchmark.
        settings: sampling parameters in place of those of the adapter and the preset.

    The adapter gets the exact inputs that its method declares.

    Returns:
        The contents of ``result.json``: the adapter's :func:`summarize`, with ``copy`` and ``ceiling`` added, and the
        names of its ``inputs`` where it has any.

    Raises:
        UserError: the adapter's backbone is not the nano one, its method needs an input that the nano world has not,
            or a value is out of its range.
    """
    _check(pipeline, per_task, frames, seed)
    config = pipeline.config.preset(quality).override(**settings)
    editors = {
        "adapter": adapter_editor(pipeline, text, **vars(config)),
        "copy": copy_source,
        "ceiling": ceiling(pipeline.backbone),
    }
    rows, examples = score_editors(editors, held_out_edits(per_task, seed), frames, shown="adapter")
    summaries = {name: summarize([row for row in rows if row["editor"] == name]) for name in editors}
    result = {**summaries["adapter"], "copy": summaries["copy"], "ceiling": summaries["ceiling"]}
    given = given_inputs(pipeline)
    if given:
        result["inputs"] = list(given)
        rows = [{**row, "inputs": ", ".join(given) if row["editor"] == "adapter" else ""} for row in rows]
    out = Path(out)
    write_images(examples, out / "strips", out / "sheet.png")
    with replacing(out / "videos.parquet") as path:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    write_json(out / "result.json", result)
    for length in frames:
        print_table({name: summary["lengths"][str(length)] for name, summary in summaries.items()}, int(length))
    return result


def _check(pipeline: EditPipeline, per_task: int, frames: Sequence[int], seed: int) -> None:
    if not pipeline.backbone.is_nano:
        raise UserError(
            f"the nano suite needs an adapter of the nano backbone; this one is of {pipeline.backbone.name}"
        )
    if per_task < 1 or not frames or min(frames) < 1:
        raise UserError(f"per_task and suite.frames must be at least 1; got {per_task} and {list(frames)}")
    if seed < 0:
        raise UserError(f"suite.seed is {seed}; it must be at least 0")


def score_editors(
    editors: Mapping[str, Editor], edits: Sequence[Edit], lengths: Sequence[int], shown: str
) -> tuple[list[VideoScores], Examples]:
    """Score every editor on the same videos at every length, as many at a time as there are cores.

    Args:
        editors: called from several threads.
        shown: the editor whose first video of each task at the first length is returned.

    Returns:
        A row for every video of every editor: ``editor``, ``task``, ``video`` (its number), ``frames``, ``seconds`` (of
        the edit, while others run), all measures, parts and ``overall``; and the videos to show.
    """
    firsts = {edit.task: number for number, edit in reversed(list(enumerate(edits)))}.values()
    places = [(length, number) for length in lengths for number in range(len(edits))]
    rows: list[VideoScores] = []
    examples: Examples = {}
    all_scored = on_all_cores(lambda place: _score_video(editors, edits[place[1]], *place), places)
    with closing(all_scored) as scored, Progress(transient=True) as progress:
        bar = progress.add_task(f"{len(edits)} held-out videos", total=len(places))
        for (length, number), (own, videos) in zip(places, scored, strict=True):
            rows += own
            if length == lengths[0] and number in firsts:
                edit = edits[number]
                examples[edit.task] = (edit.instruction, videos["source"], videos["exact"], videos[shown])
            progress.advance(bar)
    return [row for name in editors for row in rows if row["editor"] == name], examples


def _score_video(
    editors: Mapping[str, Editor], edit: Edit, frames: int, number: int
) -> tuple[list[VideoScores], dict[str, np.ndarray]]:
    """One edit by all editors: a row for each; and its videos, ``source``, ``exact`` and those by editor."""
    source, exact, mask = edit.render(frames)
    rows, videos = [], {}
    for name, editor in editors.items():
        began = time.perf_counter()
        videos[name] = editor(source, edit)
        seconds = time.perf_counter() - began
        measures = measure(videos[name], exact, source, mask, edit.target)
        points = parts(measures)
        place = {"editor": name, "task": edit.task, "video": number, "frames": frames, "seconds": seconds}
        rows.append({**place, **measures, **points, "overall": overall(points)})
    return rows, {**videos, "source": source, "exact": exact}


def write_images(examples: Examples, strips: Path, sheet: Path) -> None:
    """Write ``strips/<task>.png`` for every task, and all tasks as one sheet."""
    cells = {}
    for task, (instruction, source, exact, edited) in examples.items():
        write_strip(strips / f"{task}.png", {"source": source, "exact answer": exact, "edited": edited})
        cells[f"{instruction} (source, exact answer, edited)"] = side_by_side(source, exact, edited)
    write_sheet(sheet, cells)


def print_table(summaries: Mapping[str, dict[str, Any]], frames: int) -> None:
    """Print score, parts and PSNR, a row per editor.

    Args:
        summaries: label -> :func:`means` of its videos.
        frames: length of the videos, for the title.
    """
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)  # in a file or a narrow terminal, too
    videos = next(iter(summaries.values()))["videos"]
    title = f"{videos} held-out videos, {frames} frames (PSNR in dB)"
    table = Table("", "overall", "95 %", *WEIGHTS, *REGIONS, title=title)
    for label, summary in summaries.items():
        scores = [summary["parts"][part] for part in WEIGHTS] + [summary[f"{region}_psnr"] for region in REGIONS]
        low, high = summary["interval"]
        table.add_row(label, f"{summary['overall']:.1f}", f"{low:.1f}-{high:.1f}", *map(_cell, scores))
    console.print(table)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
