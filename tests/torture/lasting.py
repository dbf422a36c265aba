"""``edits N`` or ``frames N``: edit on in one process, and print its memory as it goes; ``leak`` plants a fault."""

import gc
import sys
from pathlib import Path

import numpy as np

from imvideoedit.common.bundled import adapter_path
from imvideoedit.editing.edit_file import edit_file, load_pipeline
from imvideoedit.editing.job import Job
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.video.reader import VideoWriter

SIDE = 160  # of the source in pixels; edited much smaller
SETTINGS = {"steps": 1, "guidance": 1.0, "max_area": 1024}
EVERY = 25  # frames between two looks at the memory
KEPT: list[np.ndarray] = []  # by the planted leak


def _megabytes() -> None:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print("megabytes", pages * 4096 / 1e6, flush=True)


def _source(frames: int) -> Path:
    path, noise = Path("source.mp4"), np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), np.uint8)
    with VideoWriter(path, fps=25) as writer:
        for number in range(frames):
            writer.add(noise[number % 8].repeat(SIDE // 5, 0).repeat(SIDE // 5, 1))
    return path


def edits(pipeline: EditPipeline, count: int, leak: bool) -> None:
    """As many edits of one short video."""
    path = _source(5)
    for seed in range(count):
        edit_file(pipeline, Job(path, "snow", Path("edited.mp4"), seed=seed, settings=SETTINGS))
        if leak:
            KEPT.append(np.ones(16_000_000, np.uint8))
        _megabytes()


def frames(pipeline: EditPipeline, count: int, leak: bool) -> None:
    """One edit of as many frames; looks at the memory while they are written."""

    def look(phase: str, number: int) -> None:
        if leak:
            KEPT.append(np.ones((3, SIDE, SIDE, 3), np.uint8))
        if number % EVERY == 0:
            _megabytes()

    job = Job(_source(count), "snow", Path("edited.mp4"), settings=SETTINGS)
    edit_file(pipeline, job, on_frame=look)


def main() -> None:
    """The command."""
    what, count, *planted = sys.argv[1:]
    pipeline = load_pipeline(ModelOptions(((adapter_path("bundled"), 1.0),)), "cpu")
    {"edits": edits, "frames": frames}[what](pipeline, int(count), bool(planted))


if __name__ == "__main__":
    main()
