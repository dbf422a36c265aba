"""What is written depends on the frames alone."""

import os
import subprocess
import sys

import pytest

WRITE = """
import sys
from pathlib import Path

import numpy as np

from imvideoedit.video.reader import write_video

blocks = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
for side in (32, 64, 160):
    frame = blocks.repeat(side // 8, 0).repeat(side // 8, 1)
    write_video(sys.argv[1], [np.roll(frame, 2 * shift, 1) for shift in range(6)], fps=8, codec=sys.argv[2])
    sys.stdout.buffer.write(Path(sys.argv[1]).read_bytes())
"""


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "lossless"])
def test_what_memory_held_before_changes_no_byte(tmp_path, codec):
    def written(before: int) -> bytes:
        """As glibc has it, memory that is given out holds that byte."""
        environment = os.environ | {"MALLOC_PERTURB_": str(before)}
        command = [sys.executable, "-c", WRITE, tmp_path / "a.mp4", codec]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout

    first = written(0)
    assert first and all(written(before) == first for before in (85, 170))
