"""``+suite=study``: serves the raters' page until Ctrl-C, then writes the report."""

import math
from collections.abc import Sequence
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.web import page_server, serve
from imvideoedit.evaluation.edits.manifest import read_methods
from imvideoedit.evaluation.edits.scored_edits import write_scored_edits
from imvideoedit.evaluation.page.page import About, write_page
from imvideoedit.evaluation.study.analysis import agreement_of_raters, opinion_table, preference_table, scored_by_people
from imvideoedit.evaluation.study.plan import MODES, Mode
from imvideoedit.evaluation.study.ratings import Rating
from imvideoedit.evaluation.study.session import RatingSession


def run_study(
    out: Path,
    edits: Path | str,
    compare: Sequence[Path | str] | str,
    mode: Mode = "ratings",
    page: bool = True,
    host: str = "127.0.0.1",
    port: int = 7861,
    seed: int = 0,
    allow_host: Sequence[str] = (),
) -> Path:
    """Ask raters about all edits, then write ``scores.csv``, ``result.json`` and the report.

    Args:
        out: folder for ``ratings/``, with which a later run continues, and the results.
        edits, compare: as :func:`read_methods`.
        mode: ``ratings`` for 1 to 5, ``pairs`` for the better of two.
        page: serve the raters' page; False only analyses the ratings so far.
        host, port: of the page; port 0 takes a free one.
        seed: of the raters' orders.
        allow_host: names or addresses under which raters reach the page, besides ``host``.

    Returns:
        The report's page.

    Raises:
        UserError: a manifest is broken, a video cannot be read, the port is taken, or there are no ratings.
    """
    if mode not in MODES:
        raise UserError(f"suite.mode is {mode!r}; choose {' or '.join(MODES)}")
    rows = read_methods(edits, compare)
    session = RatingSession(rows, mode, out, seed)
    if not session.items:
        raise UserError("no two methods have an edit in common, so there is no pair to choose from")
    if page:
        _ask(session, host, port, allow_host)
    ratings = session.ratings.read(session.items)
    if not ratings:
        raise UserError(f"nothing was rated yet in {out / 'ratings'}; run with suite.page=true and rate")
    alpha = agreement_of_raters(session.items, ratings, mode)
    facts = _facts(session, ratings, alpha)
    table = opinion_table(session.items, ratings) if mode == "ratings" else preference_table(session.items, ratings)
    scales = {"study.rating": 5.0} if mode == "ratings" else {"study.preferred": 1.0}
    about = About(out.absolute().name, facts, scales=scales, tables=[table])
    scored = scored_by_people(rows, session.items, ratings, mode)
    write_scored_edits(
        scored, {"facts": facts, "alpha": None if math.isnan(alpha) else alpha, "answers": len(ratings)}, out
    )
    print(*facts, sep="\n")
    return write_page(scored, about, out / "report")


def _facts(session: RatingSession, ratings: Sequence[Rating], alpha: float) -> list[str]:
    raters = len({one.rater for one in ratings})
    value = "is unknown: no edit was rated twice" if math.isnan(alpha) else f"{alpha:.3f}"
    level = "ordinal" if session.mode == "ratings" else "nominal"
    return [
        f"Answers: {len(ratings)}, raters: {raters}, questions: {len(session.items)}; blind and in random order.",
        f"Krippendorff's alpha ({level}) {value}.",
    ]


def _ask(session: RatingSession, host: str, port: int, allow_host: Sequence[str]) -> None:
    with page_server(host, port, allow_host=allow_host) as server:
        session.prepare()
        from imvideoedit.evaluation.study.form import CSS, build_form

        # Gradio copies what it shows from there.
        serve(build_form(session), server, css=CSS, allowed_paths=[str(Path(session.media).absolute())])
