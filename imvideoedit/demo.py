"""``make demo``: train an editor on single-frame pairs, edit held-out videos, compare with the exact answers."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.json_file import write_json
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.editors import adapter_editor, ceiling, copy_source
from imvideoedit.evaluation.nano.exact import held_out_edits
from imvideoedit.evaluation.nano.suite import print_table, score_editors, write_images
from imvideoedit.evaluation.nano.summary import summarize
from imvideoedit.video.reader import write_video
from imvideoedit.video.strips import side_by_side
from imvideoedit.wan.backbone import load_backbone

LABELS = {
    "copy": "copying the source",
    "demo": "trained just now",
    "bundled": "bundled adapter",
    "ceiling": "autoencoder's ceiling",
}


def train(out: Path, overrides: list[str]) -> Path:
    """Train in a process of its own, as a user would; returns the adapter."""
    folder = out / "train"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo; training refuses to overwrite a run
    command = [sys.executable, "-m", "imvideoedit.train", "+experiment=demo", f"run_dir={folder}", *overrides]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"the demo's training failed; its log is in {folder}")
    return folder / "adapter.safetensors"


@exit_cleanly
def main() -> None:
    """Train, compare, write ``result.json``, the images and the video."""
    parser = CommandLine(prog="python -m imvideoedit.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--per-task", type=int, default=4, help="held-out videos of each of the ten tasks")
    parser.add_argument("--frames", type=int, default=17, help="4k + 1")
    parser.add_argument("overrides", nargs="*", help="training settings, such as data.pairs=1000")
    args = parser.parse_args()
    adapter = train(args.out, args.overrides)
    editors = {
        "copy": copy_source,
        "demo": adapter_editor(EditPipeline.from_pretrained(adapter=adapter)),
        "bundled": adapter_editor(EditPipeline.from_pretrained(adapter="bundled")),
        "ceiling": ceiling(load_backbone("nano")),
    }
    rows, examples = score_editors(editors, held_out_edits(args.per_task), [args.frames], shown="bundled")
    result = {name: summarize([row for row in rows if row["editor"] == name]) for name in editors}
    write_json(args.out / "result.json", result)
    write_images(examples, args.out, args.out / "edits.png")
    clips = [side_by_side(*videos).repeat(3, axis=1).repeat(3, axis=2) for _, *videos in examples.values()]
    write_video(args.out / "edits.mp4", np.concatenate(clips), fps=8)
    print_table({LABELS[name]: summary for name, summary in result.items()}, args.frames)
    print("the scores:", args.out / "result.json")
    print("the images:", *(args.out / f"{name}.png" for name in (*examples, "edits")))
    print("the video (source, exact answer, edited):", args.out / "edits.mp4")


if __name__ == "__main__":
    main()
