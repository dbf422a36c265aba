"""HTML pages with everything inside them, from the templates of this folder."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from imvideoedit.common.files import replacing

_TEMPLATES = Environment(
    loader=PackageLoader("imvideoedit.evaluation.reporting", "."), autoescape=True, undefined=StrictUndefined
)


def render(template: str, plots: Mapping[str, bytes], **values: Any) -> str:
    """A template's HTML; ``plots`` (name -> PNG) is passed to it as data URIs."""
    images = {name: data_uri(plot) for name, plot in plots.items()}
    return _TEMPLATES.get_template(template).render(plots=images, **values)


def data_uri(png: bytes) -> str:
    """A PNG as a ``data:`` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def write_plots(plots: Mapping[str, bytes], out: Path) -> None:
    """Write each plot as ``<name>.png``."""
    for name, plot in plots.items():
        with replacing(out / f"{name}.png") as path:
            path.write_bytes(plot)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; the file is complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
