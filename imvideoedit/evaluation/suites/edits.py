"""Score edits of one or several methods, keep what was scored, and write the report."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.progress import Progress

from imvideoedit.evaluation.edits.manifest import EditRow, read_methods
from imvideoedit.evaluation.edits.scored import Scored, gather, write_scored
from imvideoedit.evaluation.edits.scores import ScoreFolder, Scorer
from imvideoedit.evaluation.judge.agreement import agreement
from imvideoedit.evaluation.page.page import About, write_page

JUDGES = ("judge", "second_judge")


def run(
    out: Path,
    edits: Path | str,
    compare: Sequence[Path | str] | str,
    scorers: Mapping[str, Scorer | None],
    name: str = "",
) -> Path:
    """Score all edits by all scorers; what was scored in an earlier run is not scored again.

    Args:
        out: folder for ``scores/``, ``scores.csv``, ``result.json`` and ``report/``.
        edits, compare: as :func:`read_methods`.
        scorers: by any name; None leaves one out.
        name: of the evaluation in its report; the folder's where empty.

    Returns:
        The report's page.

    Raises:
        UserError: a list is broken, weights are missing, or a scorer cannot go on.
    """
    rows = read_methods(edits, compare)
    return score(out, rows, [scorer for scorer in scorers.values() if scorer is not None], name)


def score(out: Path, rows: Sequence[EditRow], scorers: Sequence[Scorer], name: str = "") -> Path:
    """:func:`run` of rows that are known already."""
    for scorer in scorers:
        scorer.identity()  # so that what is missing shows before any work
    folder = ScoreFolder(out / "scores")
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"{len(rows)} edits", total=len(rows) * len(scorers))
        scores = {scorer.name: folder.collect(rows, scorer, lambda row: progress.advance(bar)) for scorer in scorers}
    scored = gather(rows, scores)
    about = describe(scored, scorers, name or out.absolute().name)
    told = {"facts": about.facts, "warnings": about.warnings, "agreements": about.agreements}
    write_scored(scored, told, out)
    page = write_page(scored, about, out / "report")
    missing = [(one.row.name, problem) for one in scored for problem in one.problems.values()]
    if missing:
        print(f"{len(missing)} scores are missing, the first: {missing[0][1]}; run again to try again", file=sys.stderr)
    print("the numbers:", out / "scores.csv")
    return page


def describe(scored: Sequence[Scored], scorers: Sequence[Scorer], name: str) -> About:
    """What the report says of the scorers."""
    return About(
        name=name,
        facts=[fact for scorer in scorers for fact in scorer.facts()],
        warnings=[warning for scorer in scorers for warning in scorer.warnings()],
        scales={f"{scorer.name}.{key}": most for scorer in scorers for key, most in scorer.scales.items()},
        lower=frozenset(f"{scorer.name}.{key}" for scorer in scorers for key in scorer.lower),
        agreements=_agreements(scored, scorers),
        kinds=tuple(dict.fromkeys(scorer.kind for scorer in scorers)),
    )


def _agreements(scored: Sequence[Scored], scorers: Sequence[Scorer]) -> dict[str, dict[str, float]]:
    """Of the two judges, of each shared dimension and of the totals, each in percent of its most."""
    judges = [scorer for scorer in scorers if scorer.name in JUDGES]
    if len(judges) < 2:
        return {}
    found = {}
    for key in judges[0].scales:
        if key in judges[1].scales:
            names = [f"{judge.name}.{key}" for judge in judges]
            both = [one.numbers for one in scored if all(name in one.numbers for name in names)]
            first, second = (
                [100 * one[name] / judge.scales[key] for one in both] for name, judge in zip(names, judges, strict=True)
            )
            found[f"{key}, percent"] = agreement(first, second)
    return found
