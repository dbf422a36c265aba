"""``python -m data_recipes.review OUT [--reviewer NAME]``: a local web page for accepting and rejecting pairs.

Each decision is on disk before the page shows the next pair; the recipe's ``stage=review`` applies them.
"""

from pathlib import Path

from imvideoedit.common.errors import CommandLine, exit_cleanly
from imvideoedit.common.web import page_server, serve


def build_parser() -> CommandLine:
    """The command line."""
    parser = CommandLine(prog="python -m data_recipes.review", description="Review pairs in a browser.")
    add = parser.add_argument
    add("out", type=Path, help="a recipe's folder, after stage=filter")
    add("--reviewer", default="reviewer", help="your name on the page; ?reviewer=NAME in the address does the same")
    add("--accept", type=float, default=6.0, help="score from which the judge accepts (default 6)")
    add("--seed", type=int, default=0, help="seed of the random order")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 admits the entire network")
    add("--port", type=int, default=7861, help="port; 0 for any free one")
    return parser


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command; it ends with Ctrl-C."""
    arguments = build_parser().parse_args(argv)
    serve_page(arguments.out, arguments.reviewer, arguments.accept, arguments.seed, arguments.host, arguments.port)


def serve_page(
    out: Path, reviewer: str, accept: float = 6.0, seed: int = 0, host: str = "127.0.0.1", port: int = 7861
) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: gradio is missing, there are no judged pairs, or the port is taken.
    """
    from data_recipes.review_queue import ReviewQueue

    queue = ReviewQueue(out, accept, seed)
    with page_server(host, port, "stopped; stage=review applies the decisions") as (listener, _):
        from data_recipes.review_page import CSS, build_page

        serve(build_page(queue, reviewer), listener, css=CSS)


if __name__ == "__main__":
    main()
