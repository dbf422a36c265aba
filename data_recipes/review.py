"""``python -m data_recipes.review OUT [--reviewer NAME]``: a local web page for accepting and rejecting pairs.

Each decision is on disk before the page shows the next pair; the recipe's ``stage=review`` applies them.
"""

from collections.abc import Sequence
from pathlib import Path

from imvideoedit.common.errors import CommandLine, exit_cleanly
from imvideoedit.common.web import ALLOW_HOST, page_server, serve


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command; it ends with Ctrl-C."""
    parser = CommandLine(prog="python -m data_recipes.review", description="Review pairs in a browser.")
    add = parser.add_argument
    add("out", type=Path, help="a recipe's folder, after stage=filter")
    add("--reviewer", default="reviewer", help="your name on the page; ?reviewer=NAME in the address does the same")
    add("--accept", type=float, default=6.0, help="score from which the judge accepts (default 6)")
    add("--seed", type=int, default=0, help="seed of the random order")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 admits the entire network")
    add("--allow-host", action="append", default=[], metavar="NAME", help=ALLOW_HOST)
    add("--port", type=int, default=7861, help="port; 0 for any free one")
    serve_page(**vars(parser.parse_args(argv)))


def serve_page(
    out: Path,
    reviewer: str,
    accept: float = 6.0,
    seed: int = 0,
    host: str = "127.0.0.1",
    port: int = 7861,
    allow_host: Sequence[str] = (),
) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: gradio is missing, there are no judged pairs, or the port is taken.
    """
    from data_recipes.review_queue import ReviewQueue

    queue = ReviewQueue(out, accept, seed)
    with page_server(host, port, "stopped; stage=review applies the decisions", allow_host) as server:
        from data_recipes.review_page import CSS, build_page

        serve(build_page(queue, reviewer), server, css=CSS)


if __name__ == "__main__":
    main()
