"""Scores edits of one or several methods, stores the scores, and writes the report."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.progress import Progress

from imvideoedit.common.terminal import say
from imvideoedit.evaluation.edits.manifest import EditRow, read_methods
from imvideoedit.evaluation.edits.score_store import Scorer, ScoreStore
from imvideoedit.evaluation.edits.scored_edits import ScoredEdit, gather, write_scored_edits
from imvideoedit.evaluation.judge.agreement import agreement
from imvideoedit.evaluation.page.page import About, write_page

JUDGES = ("judge", "second_judge")


def score_edits(
    out: Path,
    edits: Path | str,
    compare: Sequence[Path | str] | str,
    scorers: Mapping[str, Scorer | None],
    name: str = "",
) -> Path:
    """Score all edits with all scorers; scores of an earlier run are reused.

    Args:
        out: folder for ``scores/``, ``scores.csv``, ``result.json`` and ``report/``.
        edits, compare: as :func:`read_methods`.
        scorers: by any name; None omits one.
        name: of the evaluation in its report; the folder's if empty.

    Returns:
        The report's page.

    Raises:
        UserError: a manifest is broken, weights are missing, or a scorer cannot continue.
    """
    rows = read_methods(edits, compare)
    return score_rows(out, rows, [scorer for scorer in scorers.values() if scorer is not None], name)


def score_rows(out: Path, rows: Sequence[EditRow], scorers: Sequence[Scorer], name: str = "") -> Path:
    """As :func:`score_edits`, with rows that are read already."""
    for scorer in scorers:
        scorer.identity()  # fails here, before any work, if something is missing
    folder = ScoreStore(out / "scores")
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"{len(rows)} edits", total=len(rows) * len(scorers))
        scores = {scorer.name: folder.collect(rows, scorer, lambda row: progress.advance(bar)) for scorer in scorers}
    scored = gather(rows, scores)
    about = describe(scored, scorers, name or out.absolute().name)
    stated = {"facts": about.facts, "warnings": about.warnings, "agreements": about.agreements}
    write_scored_edits(scored, stated, out)
    page = write_page(scored, about, out / "report")
    missing = [(one.row.name, problem) for one in scored for problem in one.problems.values()]
    if missing:
        say(f"{len(missing)} scores are missing, the first: {missing[0][1]}; run again to retry them", file=sys.stderr)
    say("the scores:", out / "scores.csv")
    return page


def describe(scored: Sequence[ScoredEdit], scorers: Sequence[Scorer], name: str) -> About:
    """What the report states about the scorers."""
    return About(
        name=name,
        facts=[fact for scorer in scorers for fact in scorer.facts()],
        warnings=[warning for scorer in scorers for warning in scorer.warnings()],
        scales={f"{scorer.name}.{key}": most for scorer in scorers for key, most in scorer.scales.items()},
        lower=frozenset(f"{scorer.name}.{key}" for scorer in scorers for key in scorer.lower),
        agreements=_agreements(scored, scorers),
        kinds=tuple(dict.fromkeys(scorer.kind for scorer in scorers)),
    )


def _agreements(scored: Sequence[ScoredEdit], scorers: Sequence[Scorer]) -> dict[str, dict[str, float]]:
    """Agreement of the two judges on each shared dimension and on the totals, in percent of the maximum."""
    judges = [scorer for scorer in scorers if scorer.name in JUDGES]
    if len(judges) < 2:
        return {}
    found = {}
    for key in judges[0].scales:
        if key in judges[1].scales:
            names = [f"{judge.name}.{key}" for judge in judges]
            both = [one.values for one in scored if all(name in one.values for name in names)]
            first, second = (
                [100 * one[name] / judge.scales[key] for one in both] for name, judge in zip(names, judges, strict=True)
            )
            found[f"{key}, percent"] = agreement(first, second)
    return found
