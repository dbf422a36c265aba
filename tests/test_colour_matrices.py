"""Videos that code colour in ways that this package cannot read are refused, not shown in wrong colours."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from imvideoedit.common.errors import UserError
from imvideoedit.video.reader import Clip


def make(path: Path, planes: tuple[int, int, int], matrix: int, pixel_format: str = "yuv444p") -> Path:
    """Two flat frames of these samples, to the bit, whose colours the file says are coded by a matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2
        for _ in range(2):
            count = 3 if pixel_format == "yuv444p" else 1
            samples = np.concatenate([np.full((32, 32), each, np.uint8) for each in planes[:count]])
            container.mux(
                stream.encode(VideoFrame.from_ndarray(samples.reshape(count, 32, 32).squeeze(), pixel_format))
            )
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (14, "ICtCp")], ids=["screens", "high dynamic range"])
def test_colours_that_cannot_be_read_are_refused(tmp_path, matrix, name):
    with pytest.raises(UserError, match=f"codes its colours as {name}.*convert it to BT.709 first"):
        Clip(make(tmp_path / "a.mp4", (128, 255, 128), matrix))  # green in YCgCo, purple where read as BT.601


def test_known_and_unstated_ones_are_read_and_grey_has_none(tmp_path):
    red = Clip(make(tmp_path / "a.mp4", (76, 85, 255), 5))  # BT.601's in full range
    assert np.abs(next(iter(red))[0, 0].astype(int) - (254, 0, 0)).max() <= 2
    grey = Clip(make(tmp_path / "b.mp4", (90, 0, 0), 8, "gray"))
    assert np.unique(next(iter(grey))).tolist() == [90]
