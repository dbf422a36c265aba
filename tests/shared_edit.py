"""For ``test_shared_edits``: the editing command as it is, in a process that notes what it computes.

    python -m tests.shared_edit FOLDER ARGUMENTS...

In FOLDER: ``latents.pt`` of what is decoded, and of each process ``facts-RANK.json``: the parts of the backbone that it
loaded, and the most and the sum of the tokens in the first block's passes.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from imvideoedit.edit import main
from imvideoedit.editing import chosen_base, edit_file, pipeline
from imvideoedit.editing.conditions import decode
from imvideoedit.wan.backbone import load_backbone


def noting(folder: Path) -> dict[str, Any]:
    """Watch this process; the facts grow as it works."""
    facts: dict[str, Any] = {"parts": None, "most": 0, "tokens": 0}

    def loading(*arguments: Any, **options: Any) -> Any:
        backbone = load_backbone(*arguments, **options)
        facts["parts"] = [name for name in ("vae", "text_encoder", "tokenizer") if getattr(backbone, name) is not None]
        backbone.transformer.blocks[0].register_forward_pre_hook(count)
        return backbone

    def count(_: Any, args: tuple[Any, ...]) -> None:
        facts["most"] = max(facts["most"], args[0].shape[1])
        facts["tokens"] += args[0].shape[1]

    def decoding(backbone: Any, latents_BCFHW: torch.Tensor, frames: int) -> Any:
        torch.save(latents_BCFHW, folder / "latents.pt")
        return decode(backbone, latents_BCFHW, frames)

    chosen_base.load_backbone, pipeline.decode = loading, decoding
    assert edit_file.EditPipeline is pipeline.EditPipeline
    return facts


if __name__ == "__main__":
    place = Path(sys.argv.pop(1))
    noted = noting(place)
    try:
        main()
    finally:
        (place / f"facts-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(noted))
