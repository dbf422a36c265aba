from fractions import Fraction

import av
import numpy as np
import pytest

from imvideoedit.data.video import read_video

NTSC = Fraction(30000, 1001)


def encode(path, frames, fps, codec="libx264", times=None):
    """A clip made by PyAV alone; times are in milliseconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=fps, options={"crf": "4"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = (index, 1 / fps) if times is None else (times[index], Fraction(1, 1000))
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def greys(count: int) -> np.ndarray:
    """Frame i is uniformly grey, 8 * i + 20."""
    values = (np.arange(count) * 8 + 20).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 48, 64, 3)).copy()


def levels(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 20) / 8) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts", "webm"])
def test_every_container_gives_every_frame_once(tmp_path, suffix):
    encode(tmp_path / f"clip.{suffix}", greys(20), NTSC, "libvpx-vp9" if suffix == "webm" else "libx264")
    frames, info = read_video(tmp_path / f"clip.{suffix}")
    assert levels(frames) == list(range(20)) and info.frames == 20
    # Matroska and transport streams round their stamps, so the rate they state is off by a little.
    assert float(info.fps) == pytest.approx(float(NTSC), rel=1e-3)


# The first is told that the last picture lasts 150 ms, the second that it lasts 40 ms.
@pytest.mark.parametrize(("suffix", "rate"), [("mp4", 12 / 1.2), ("mkv", 12 / 1.09)])
def test_each_moment_of_a_variable_rate_shows_the_latest_picture_due(tmp_path, suffix, rate):
    # Six pictures at 20 a second, then six at 20/3.
    times = [0, 50, 100, 150, 200, 250, 300, 450, 600, 750, 900, 1050]
    encode(tmp_path / f"clip.{suffix}", greys(12), Fraction(25), times=times)
    frames, info = read_video(tmp_path / f"clip.{suffix}")
    assert info.frames == len(frames) and float(info.fps) == pytest.approx(rate, rel=0.01)
    for index, level in enumerate(levels(frames)):
        time, half = 1000 * index / float(info.fps), 500 / float(info.fps)
        assert times[level] <= time + half + 1
        assert level == 11 or times[level + 1] >= time + half - 1
