"""``make demo``: train an editor on single-frame pairs, edit held-out videos, compare with the exact answers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.compare import compare, show
from imvideoedit.evaluation.nano.editors import adapter_editor, ceiling, copy_source
from imvideoedit.evaluation.nano.exact import Editor, held_out_edits
from imvideoedit.video.reader import write_video
from imvideoedit.video.strips import side_by_side, write_sheet, write_strip
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.edits import Edit

ROWS = {
    "copy": "copying the source",
    "demo": "trained just now",
    "bundled": "bundled adapter",
    "ceiling": "autoencoder's ceiling",
}


def train(out: Path, overrides: list[str]) -> Path:
    """Run the demo's training as a user would, in its own process; returns the adapter."""
    folder = out / "train"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo; training refuses to write over a run
    command = [sys.executable, "-m", "imvideoedit.train", "+experiment=demo", f"run_dir={folder}", *overrides]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"the demo's training failed; its log is in {folder}")
    return folder / "adapter.safetensors"


def pictures(editors: dict[str, Editor], edits: list[Edit], frames: int, out: Path) -> list[Path]:
    """A strip a task, then all tasks as one sheet and as one mp4: source, exact answer, edit."""
    written: list[Path] = []
    together: dict[str, np.ndarray] = {}
    for edit in edits:
        source, exact, _ = edit.render(frames)
        edited = editors["bundled"](source, edit)
        written.append(out / f"{edit.task}.png")
        write_strip(written[-1], {"source": source, "exact": exact, "edited": edited})
        together[f"{edit.instruction} (source, exact answer, edit)"] = side_by_side(source, exact, edited)
    write_sheet(out / "edits.png", together)
    clips = [clip.repeat(3, axis=1).repeat(3, axis=2) for clip in together.values()]
    written += [out / "edits.png", out / "edits.mp4"]
    write_video(written[-1], np.concatenate(clips), fps=8)
    return written


@exit_cleanly
def main() -> None:
    """Train, compare, write ``result.json`` and the pictures."""
    parser = CommandLine(prog="python -m imvideoedit.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--per-task", type=int, default=4, help="held-out videos of each of the ten tasks")
    parser.add_argument("--frames", type=int, default=17, help="4k + 1")
    parser.add_argument("overrides", nargs="*", help="training settings, such as data.pairs=1000")
    args = parser.parse_args()
    adapter = train(args.out, args.overrides)
    backbone = load_backbone("nano")
    editors = {
        "copy": copy_source,
        "demo": adapter_editor(EditPipeline.from_pretrained(adapter=adapter)),
        "bundled": adapter_editor(EditPipeline.from_pretrained(adapter="bundled")),
        "ceiling": ceiling(backbone),
    }
    edits = held_out_edits(args.per_task)
    result = compare(editors, args.per_task, args.frames)
    with replacing(args.out / "result.json") as path:
        path.write_text(json.dumps(result, indent=2) + "\n")
    written = pictures(editors, edits[:: args.per_task], args.frames, args.out)
    show(result, ROWS, f"{len(edits)} held-out nano videos, {args.frames} frames, ten tasks")
    print("the numbers:", args.out / "result.json")
    print("the pictures:", *written[:-1])
    print("the video (source, exact answer, edit):", written[-1])


if __name__ == "__main__":
    main()
