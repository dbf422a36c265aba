"""The model card of an adapter: written from its header, and from the scores and pictures that lie beside it."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from imvideoedit.common.errors import UserError
from imvideoedit.common.escaping import markdown_code, markdown_text
from imvideoedit.common.json_file import read_json
from imvideoedit.common.terminal import printable
from imvideoedit.methods.adapter_header import AdapterHeader, named, open_adapter, read_header
from imvideoedit.wan.locations import WAN_1_3B_HUB

MARKER = "<!-- Written by imvideoedit from the adapter's header. Remove this line to keep what you change. -->"
SCORES = "scores/result.json"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_BASES = {"wan_1_3b": WAN_1_3B_HUB}


def model_card(folder: Path, adapter: str, pictures: Sequence[str], name: str, license: str | None = None) -> str:
    """The text of a ``README.md`` for the Hub.

    Args:
        folder: that holds all files.
        adapter, pictures: their names in it.
        name: that the adapter is loaded by.
        license: of the adapter, as the Hub names it, such as ``apache-2.0``.

    Raises:
        UserError: the adapter or its scores are damaged.
    """
    header = read_header(folder / adapter)
    base, scores = _base(header), _scores(folder / SCORES)
    title = name.rsplit("/", 1)[-1]
    data = ModelCardData(
        license=license,
        library_name="imvideoedit",
        pipeline_tag="video-to-video",
        base_model=base["hub"],
        base_model_relation="adapter" if base["hub"] else None,
        tags=["video-editing", "wan", "imvideoedit", header.method],
        model_name=title if scores else None,
        eval_results=_results(scores) or None,
    )
    file = open_adapter(folder / adapter)
    how: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    templates = jinja2.Environment(autoescape=False, **how)  # Markdown, which the filters escape
    templates.filters |= {"text": markdown_text, "code": markdown_code, "json": json.dumps, "shell": _shell}
    page = templates.from_string((Path(__file__).parent / "card.md.j2").read_text(encoding="utf-8"))
    text = page.render(
        data=data.to_yaml().strip(),
        marker=MARKER,
        title=title,
        name=name,
        header=header,
        base=base,
        inputs=named(header.inputs),
        tensors=len(file.names),
        megabytes=round((folder / adapter).stat().st_size / 1e6, 1),
        training={key: value for key, value in header.training.items() if key != "sampler"},
        scores=scores,
        pictures=pictures,
    )
    return text.strip() + "\n"


def is_local(header: AdapterHeader) -> bool:
    """Whether an adapter names its base model by a folder, which others do not have."""
    name = header.backbone["name"]
    return "/" in name and not _HUB_ID.fullmatch(name)


def _shell(text: str) -> str:
    return shlex.quote(" ".join(printable(text).split()))


def _base(header: AdapterHeader) -> dict[str, str | None]:
    """Name, repository on the Hub and revision of the base model; of a folder, its last name alone."""
    name = header.backbone["name"]
    hub = _BASES.get(name, name if _HUB_ID.fullmatch(name) else None)
    shown = Path(name).name if is_local(header) else name
    return {"name": shown, "hub": hub, "revision": header.backbone.get("revision")}


def _scores(path: Path) -> list[dict[str, Any]]:
    """A row for each length of NanoEdit-Bench; none where there are no scores.

    Raises:
        UserError: the file is damaged, or of something else.
    """
    if not path.is_file():
        return []
    result = read_json(path)
    try:
        return [
            {
                "frames": frames,
                "videos": int(own["videos"]),
                "overall": round(float(own["overall"]), 1),
                "interval": [round(float(end), 1) for end in own.get("interval") or ()],
                "copy": round(float(result["copy"]["lengths"][frames]["overall"]), 1),
                "ceiling": round(float(result["ceiling"]["lengths"][frames]["overall"]), 1),
            }
            for frames, own in result["lengths"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds no scores of NanoEdit-Bench ({error!r}); remove it, or score again") from error


def _results(scores: Sequence[dict[str, Any]]) -> list[EvalResult]:
    """The scores as the Hub lists them."""
    return [
        EvalResult(
            task_type="video-to-video",
            dataset_type="nanoedit-bench",
            dataset_name="NanoEdit-Bench",
            dataset_config=f"{row['frames']} frames",
            metric_type="overall",
            metric_value=row["overall"],
        )
        for row in scores
    ]
