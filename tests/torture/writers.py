"""Each writer of the package, called alone: ``write(folder, number)`` writes file ``number`` below a folder.

As a command: the writer's name, a folder and a number.
"""

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from imvideoedit.common.errors import exit_cleanly

NOISE = np.random.default_rng(0).integers(0, 256, (9, 96, 96, 3), np.uint8)


def _video(folder: Path, number: int) -> None:
    from imvideoedit.video.reader import write_video

    write_video(folder / f"{number}.mp4", NOISE, Fraction(8), crf=4)


def _pngs(folder: Path, number: int) -> None:
    from imvideoedit.video.reader import write_video

    write_video(folder / f"{number}", NOISE, Fraction(8), codec="png")


def _still(kind: str) -> Callable[[Path, int], None]:
    def write(folder: Path, number: int) -> None:
        from imvideoedit.video.reader import write_video

        write_video(folder / f"{number}{kind}", NOISE[:1], Fraction(1))

    return write


def _adapter(folder: Path, number: int) -> None:
    from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
    from imvideoedit.methods.predict_update import PredictUpdate
    from imvideoedit.wan.backbone import load_backbone

    backbone = load_backbone("nano", device="cpu")
    method = PredictUpdate()
    method.install(backbone.transformer)
    save_adapter(method, folder / f"{number}.safetensors", AdapterHeader.describe(method, backbone, {}))


def _checkpoint(folder: Path, number: int) -> None:
    from imvideoedit.training.checkpoints import AtomicCheckpointIO, Checkpoints

    try:
        AtomicCheckpointIO().save_checkpoint({"weights": torch.rand(200_000)}, folder / f"{number}.ckpt")
    except OSError as error:  # as its caller does
        raise Checkpoints(folder, 1)._not_written(number, error) from error


def _manifest(folder: Path, number: int) -> None:
    from imvideoedit.evaluation.edits.manifest import EditRow, write_manifest

    rows = [EditRow(f"{number} {place}", folder / "a.mp4", "snow " * 20) for place in range(2000)]
    write_manifest(rows, folder / f"{number}.jsonl")


def _report(folder: Path, number: int) -> None:
    from imvideoedit.evaluation.edits.manifest import EditRow
    from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
    from imvideoedit.evaluation.page.page import About, write_page

    rows = [EditRow(f"e{place}", folder / "a.mp4", "snow", folder / "b.mp4", "ours") for place in range(3)]
    scored = [ScoredEdit(row, {"open.flicker": float(place)}) for place, row in enumerate(rows)]
    write_page(scored, About("a report"), folder / f"{number}")


def _scores(folder: Path, number: int) -> None:
    from imvideoedit.common.json_file import write_json

    write_json(folder / f"{number}.json", {"values": list(range(9000))})


def _cache(folder: Path, number: int) -> None:
    from imvideoedit.data.shards import ShardStore

    ShardStore(folder).write({f"key{number}": {"latents": torch.rand(90_000)}})


def _rows(folder: Path, number: int) -> None:
    import pyarrow as pa

    from data_recipes.shards import Shards

    text = np.random.default_rng(number).bytes(90_000).hex()
    rows = [{"id": "a", "text": text}]
    Shards(folder, pa.schema([("id", pa.string()), ("text", pa.string())])).write(number, rows, "key")


def _table(folder: Path, number: int) -> None:
    from imvideoedit.video.strips import write_sheet

    write_sheet(folder / f"{number}.png", {"a": NOISE, "b": NOISE})


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "video": _video,
    "folder of PNGs": _pngs,
    "png": _still(".png"),
    "jpg": _still(".jpg"),
    "webp": _still(".webp"),
    "tiff": _still(".tiff"),
    "adapter": _adapter,
    "checkpoint": _checkpoint,
    "manifest": _manifest,
    "report": _report,
    "kept scores": _scores,
    "encoded cache": _cache,
    "recipe's rows": _rows,
    "sheet of pictures": _table,
}


@exit_cleanly
def main() -> None:
    """Call a writer; a fourth argument plants a fault."""
    name, folder, number, *planted = sys.argv[1:]
    Path(folder).mkdir(exist_ok=True)
    if planted:
        (Path(folder) / "planted.json").write_text('{"half":')
    WRITERS[name](Path(folder), int(number))


if __name__ == "__main__":
    main()
