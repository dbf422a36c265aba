"""Means, intervals and paired differences of a report, over all videos, each task and each length."""

from collections.abc import Sequence
from typing import Any

from imvideoedit.evaluation.nano.report_data import SCORES, Variant
from imvideoedit.evaluation.nano.summary import VideoScores
from imvideoedit.evaluation.reporting.statistics import Estimate, estimate, interval_over_seeds, mean_of_known

ReportRow = dict[str, Any]
"""A row of ``table.csv``; what does not apply is missing."""
DIFFERENCE = ("difference", "difference_low", "difference_high", "verdict")
COLUMNS = (
    "variant", "task", "frames", "seeds", "videos", "overall", "low", "high", *SCORES[1:], "parameters", "steps",
    *DIFFERENCE,
)  # fmt: skip


def estimates(known: Sequence[Variant], references: Sequence[Variant]) -> list[ReportRow]:
    """A row for every variant and reference over all videos, then for each task, then for each length."""
    videos = [row for variant in known for row in variant.rows]
    tasks = [("task", task) for task in dict.fromkeys(row["task"] for row in videos)]
    lengths = [("frames", length) for length in sorted({row["frames"] for row in videos})]
    found = []
    for key, value in [("", ""), *tasks, *lengths]:
        first = _within(known[0].rows, key, value)
        for variant in (*known, *references):
            own = _within(variant.rows, key, value)
            if own:
                place = {"variant": variant.label, "task": "", "frames": "", **({key: value} if key else {})}
                paired = paired_difference(own, first) if variant in known[1:] else {}
                found.append({**place, **_scores(own), **_training(variant), **paired})
    return found


def paired_difference(rows: Sequence[VideoScores], first: Sequence[VideoScores]) -> ReportRow:
    """Mean difference of ``overall`` to the first variant, paired by task, video, length and seed, with a verdict."""
    base = {_place(row): row["overall"] for row in first}
    paired = [{**row, "overall": row["overall"] - base[_place(row)]} for row in rows if _place(row) in base]
    if not paired:
        return {"verdict": "no video and seed in common"}
    low, high = interval_over_seeds(paired)
    verdict = "interval includes zero"
    if low > 0 or high < 0:
        verdict = f"interval excludes zero: {'higher' if low > 0 else 'lower'}"
    return dict(zip(DIFFERENCE, (mean_of(paired, "overall"), low, high, verdict), strict=True))


def mean_of(rows: Sequence[VideoScores], key: str) -> float:
    """Mean of the known values; NaN if there is none."""
    return mean_of_known(row[key] for row in rows)


def estimate_of(rows: Sequence[VideoScores], key: str) -> Estimate:
    """Mean with its interval over seeds and videos."""
    return estimate(mean_of(rows, key), interval_over_seeds(rows, key))


def _place(row: VideoScores) -> tuple:
    return tuple(row[key] for key in ("seed", "task", "video", "frames"))


def _within(rows: Sequence[VideoScores], key: str, value: Any) -> list[VideoScores]:
    return [row for row in rows if not key or row[key] == value]


def _scores(rows: Sequence[VideoScores]) -> ReportRow:
    low, high = interval_over_seeds(rows)
    counts = {"seeds": len({row["seed"] for row in rows}), "videos": len({(row["task"], row["video"]) for row in rows})}
    return {**counts, **{key: mean_of(rows, key) for key in SCORES}, "low": low, "high": high}


def _training(variant: Variant) -> ReportRow:
    """Parameters and steps of the runs, several if they differ; nothing for an editor without training."""
    if not variant.runs:
        return {"seeds": ""}
    known = {key: {getattr(run, key) for run in variant.runs} - {None} for key in ("parameters", "steps")}
    return {key: " or ".join(str(value) for value in sorted(values)) for key, values in known.items()}
