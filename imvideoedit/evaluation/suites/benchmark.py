"""``+suite=benchmark``: edit a benchmark with an adapter, then score the edits; both resume an interrupted run."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.edit_batch import Input
from imvideoedit.editing.job import Job
from imvideoedit.editing.jobs import Entry
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.run_jobs import print_summary, run_jobs
from imvideoedit.evaluation.edits.manifest import EditRow, read_manifest, read_methods, write_manifest
from imvideoedit.evaluation.edits.score_store import Scorer
from imvideoedit.evaluation.suites.edits import score_rows
from imvideoedit.evaluation.suites.folders import BENCHMARKS, read_benchmark
from imvideoedit.evaluation.suites.inputs import declared_inputs, inputs_of, name_unused
from imvideoedit.methods.adapter_hub import find_adapter
from imvideoedit.video.images import load_rgb
from imvideoedit.video.masks import list_images
from imvideoedit.video.reader import Clip, write_video


def run_benchmark(
    out: Path,
    benchmark: str,
    adapter: str,
    device: str | None,
    scorers: Mapping[str, Scorer | None],
    folder: Path | str | None = None,
    method: str = "ours",
    compare: Sequence[Path | str] | str = (),
    limit: int | None = None,
    quality: str = "best",
) -> Path:
    """Make all edits of a benchmark in ``out/edits``, then score them and, if given, those of other methods.

    The adapter gets the first frames, masks, references and other inputs that its method takes, where the edits have
    them. An edit that lacks one it needs is not made.

    Args:
        benchmark: one of :data:`BENCHMARKS`; or a manifest of edits to make.
        adapter: its file; ``bundled`` for the bundled one.
        scorers: by any name; None omits one.
        folder: of the benchmark, as its publishers offer it.
        method: name of the adapter in the report.
        compare: folders of other methods' videos, named by the ids, or manifests.
        limit: number of edits, from the first.
        quality: of the edits, see :meth:`SamplingConfig.preset`.

    Returns:
        The report's page.

    Raises:
        UserError: the benchmark or the adapter is missing, no edit could be made, or a scorer cannot continue.
    """
    rows = _rows(benchmark, folder)[:limit]
    path = find_adapter(adapter)
    what, declared = f"the adapter {path.name}", declared_inputs(path)
    name_unused(rows, declared, what)
    entries = [_entry(row, out / "edits", quality, declared, what) for row in rows]
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"{len(entries)} edits", total=len(entries))
        outcomes = []
        for outcome in run_jobs(entries, ModelOptions(((path, 1.0),)), [device]):
            outcomes.append(outcome)
            progress.advance(bar)
    print_summary(outcomes)
    failed = {outcome.entry.where for outcome in outcomes if outcome.state == "failed"}
    made = [
        _scored(row, entry.job, method, out)
        for row, entry in zip(rows, entries, strict=True)
        if entry.where not in failed and entry.job is not None
    ]
    if not made:
        raise UserError("none of the benchmark's edits could be made; the lines above say why")
    write_manifest(made, out / "edits" / "manifest.jsonl")
    every = read_methods(out / "edits", compare)
    return score_rows(
        out, every, [scorer for scorer in scorers.values() if scorer is not None], f"{benchmark}: {method}"
    )


def _mask_video(row: EditRow, folder: Path) -> Path | None:
    """A row's mask; of a folder of images the same as a video, which is made in ``folder`` unless it is there."""
    if row.mask is None or not row.mask.is_dir():
        return row.mask
    path = folder / f"{row.mask.name}.mkv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        grey = (load_rgb(image) for image in list_images(row.mask))
        write_video(path, grey, fps=Clip(row.source).info.fps, codec="lossless")
    return path


def _rows(benchmark: str, folder: Path | str | None) -> list[EditRow]:
    if Path(benchmark).suffix.lower() in (".jsonl", ".csv"):
        return read_manifest(Path(benchmark))
    if folder is None:
        raise UserError(f"say where {benchmark} is, with folder=DIR; benchmarks are {', '.join(BENCHMARKS)}")
    return read_benchmark(benchmark, Path(folder))


def _scored(row: EditRow, job: Job, method: str, out: Path) -> EditRow:
    """A row as scorers take it: with the mask and the first frame; other inputs lie outside this manifest's folder."""
    kept = keep_first_frame(row, out / "edits")
    return replace(row, edited=job.output, method=method, mask=_mask_video(row, out / "masks"), inputs=kept)


def keep_first_frame(row: EditRow, folder: Path) -> dict[str, Path | str]:
    """The first frame that a row gives, copied into a folder of its own there, as a manifest's files lie within its."""
    given = row.inputs.get("first_frame")
    if not isinstance(given, Path):
        return {}
    copy = folder / "first_frames" / f"{row.id}{given.suffix}"
    with replacing(copy) as temporary:
        shutil.copyfile(given, temporary)
    return {"first_frame": copy}


def _entry(row: EditRow, folder: Path, quality: str, declared: Sequence[Input], what: str) -> Entry:
    texts = row.prompt or None, row.source_prompt or None
    try:
        given = inputs_of(row, declared, what)
        options: dict[str, Any] = {"inputs": given} if given else {}
        job = Job(row.source, row.instruction, folder / f"{row.id}.mp4", *texts, quality=quality, **options)
    except UserError as error:
        return Entry(row.id, None, str(error))
    return Entry(row.id, job)
