"""``+suite=study``: the page for raters until Ctrl-C, then the report on what they said."""

import math
from collections.abc import Sequence
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.web import MEGABYTE, page_server, serve
from imvideoedit.evaluation.edits.manifest import read_methods
from imvideoedit.evaluation.edits.scored import write_scored
from imvideoedit.evaluation.page.page import About, write_page
from imvideoedit.evaluation.study.analysis import agreement_of_raters, opinion_table, preference_table, scored_by_people
from imvideoedit.evaluation.study.desk import Desk
from imvideoedit.evaluation.study.plan import MODES, Mode
from imvideoedit.evaluation.study.ratings import Rating


def run(
    out: Path,
    edits: Path | str,
    compare: Sequence[Path | str] | str,
    mode: Mode = "ratings",
    page: bool = True,
    host: str = "127.0.0.1",
    port: int = 7861,
    seed: int = 0,
) -> Path:
    """Ask raters about all edits, then write ``scores.csv``, ``result.json`` and the report.

    Args:
        out: folder for ``ratings/``, which a later run goes on with, and all that is made of them.
        edits, compare: as :func:`read_methods`.
        mode: ``ratings`` for 1 to 5, ``pairs`` for the better of two.
        page: whether to serve the raters' page, or only to analyse what was rated.
        host, port: of the page; port 0 takes a free one.
        seed: of the raters' orders.

    Returns:
        The report's page.

    Raises:
        UserError: a list is broken, a video cannot be read, the port is taken, or nothing was rated.
    """
    if mode not in MODES:
        raise UserError(f"suite.mode is {mode!r}; choose {' or '.join(MODES)}")
    rows = read_methods(edits, compare)
    desk = Desk(rows, mode, out, seed)
    if not desk.items:
        raise UserError("no two methods have an edit in common, so there is no pair to choose from")
    if page:
        _ask(desk, host, port)
    ratings = desk.ratings.read(desk.items)
    if not ratings:
        raise UserError(f"nothing was rated yet in {out / 'ratings'}; run with suite.page=true and rate")
    alpha = agreement_of_raters(desk.items, ratings, mode)
    facts = _facts(desk, ratings, alpha)
    table = opinion_table(desk.items, ratings) if mode == "ratings" else preference_table(desk.items, ratings)
    scales = {"study.rating": 5.0} if mode == "ratings" else {"study.preferred": 1.0}
    about = About(out.absolute().name, facts, scales=scales, tables=[table])
    scored = scored_by_people(rows, desk.items, ratings, mode)
    write_scored(scored, {"facts": facts, "alpha": None if math.isnan(alpha) else alpha, "answers": len(ratings)}, out)
    print(*facts, sep="\n")
    return write_page(scored, about, out / "report")


def _facts(desk: Desk, ratings: Sequence[Rating], alpha: float) -> list[str]:
    raters = len({one.rater for one in ratings})
    told = "cannot be known: no edit was rated by two" if math.isnan(alpha) else f"{alpha:.3f}"
    level = "ordinal" if desk.mode == "ratings" else "nominal"
    return [
        f"Answers: {len(ratings)}, raters: {raters}, questions: {len(desk.items)}; blind and in random order.",
        f"Krippendorff's alpha ({level}) {told}.",
    ]


def _ask(desk: Desk, host: str, port: int) -> None:
    with page_server(host, port) as (listener, _):
        desk.prepare()
        from imvideoedit.evaluation.study.form import CSS, build_form

        media = [str(Path(desk.media).absolute())]
        serve(build_form(desk), listener, css=CSS, max_file_size=MEGABYTE, allowed_paths=media)
