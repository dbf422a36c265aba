import math
from fractions import Fraction

import av
import numpy as np
import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.video.reader import Clip, read_video
from imvideoedit.video.timing import Timing, rate
from tests.clips import flat_frames, levels_of, make_clip, shown_times

NTSC = Fraction(30000, 1001)
UNEVEN = Timing(Fraction(1, 1000), np.array([0, 50, 100, 300, 320]), 420, origin=Fraction(7))
LEVELS = [10 * i for i in range(1, 25)]
MILLISECONDS = [0, 50, 100, 150, 200, 250, 300, 450, 600, 750, 900, 1050]


def test_what_a_timing_tells():
    assert len(UNEVEN) == 5 and UNEVEN.duration == Fraction(42, 100)
    assert UNEVEN.durations.tolist() == [50, 50, 200, 20, 100]
    assert UNEVEN.seconds == pytest.approx([0, 0.05, 0.1, 0.3, 0.32])
    assert not UNEVEN.is_constant and UNEVEN.fps == Fraction(500, 42)
    even = Timing.constant(NTSC, 3)
    assert even.is_constant and even.fps == NTSC and even.duration == 3 / NTSC
    assert even == Timing.constant(NTSC, 3) != Timing.constant(NTSC, 4)


@pytest.mark.parametrize(
    ("start", "end", "first", "ticks", "stop"),
    [
        (None, None, 0, [0, 50, 100, 300, 320], 420),
        (0.05, 0.3, 1, [0, 50], 250),  # half open
        (0.051, None, 2, [0, 200, 220], 320),
        (0, 0.2, 0, [0, 50, 100], 200),  # the last frame's show ends with the range
        (0.32, 99, 4, [0], 100),
        (0.1 + 0.2, None, 3, [0, 20], 120),  # floats that are off by their last bit
    ],
)
def test_ranges_are_half_open(start, end, first, ticks, stop):
    begun, kept = UNEVEN.cut(start, end, "a.mp4")
    assert begun == first and kept.ticks.tolist() == ticks and kept.end == stop
    assert kept.origin == 7 + Fraction(int(UNEVEN.ticks[first]), 1000)
    assert kept.from_first == (first == 0) and kept.to_last == (end is None or end > 0.42)


def test_a_range_of_a_constant_rate_keeps_the_rate():
    _, kept = Timing.constant(Fraction(24), 48).cut(1.01, 1.97, "a.mp4")
    assert kept.is_constant and kept.fps == 24 and len(kept) == 23


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (0.42, None, "lasts 0.42 s"),
        (0.3, 0.3, "is empty"),
        (0.3, 0.1, "is empty"),
        (-1, None, "start is -1 s"),
        (None, math.nan, "end is nan s"),
        (0.11, 0.29, "no frame of a.mp4"),
        (None, 0, "no frame of a.mp4"),
    ],
)
def test_wrong_ranges_are_one_line(start, end, why):
    with pytest.raises(UserError, match=f"a.mp4.*{why}|{why}.*a.mp4|{why}") as caught:
        UNEVEN.cut(start, end, "a.mp4")
    assert "a.mp4" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fps", [0, -1, math.inf, math.nan])
def test_wrong_rates_are_refused(fps):
    with pytest.raises(UserError, match="fps is"):
        rate(fps)


def test_rates_become_the_fractions_that_are_meant():
    assert rate(29.97002997) == NTSC and rate(24) == 24 and rate(12.5) == Fraction(25, 2)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts", "flv", "webm", "h264"])
def test_every_container_gives_every_frame_once(tmp_path, suffix):
    clip = tmp_path / f"clip.{suffix}"
    make_clip(clip, flat_frames(LEVELS), rate=NTSC, codec="libvpx-vp9" if suffix == "webm" else "libx264")
    frames, info = read_video(clip)
    assert levels_of(frames) == LEVELS and info.frames == 24
    # Where the container rounds its stamps, the rate is told from them and what it states.
    assert info.timing == Timing.constant(NTSC, 24, info.timing.origin)


def test_matroska_with_millisecond_stamps_has_a_constant_rate(tmp_path):
    frames, info = read_video(make_clip(tmp_path / "a.mkv", flat_frames(LEVELS), rate=24))
    assert levels_of(frames) == LEVELS and info.fps == 24 and info.duration == 1


@pytest.mark.parametrize(("suffix", "b_frames"), [("mp4", "0"), ("mp4", "3"), ("mov", "3"), ("mkv", "3")])
def test_frames_of_a_variable_rate_come_once_each_at_their_times(tmp_path, suffix, b_frames):
    clip = tmp_path / f"a.{suffix}"
    make_clip(clip, flat_frames(LEVELS[:12]), MILLISECONDS, rate=1000, last=70, options={"bf": b_frames})
    frames, info = read_video(clip)
    assert levels_of(frames) == LEVELS[:12]
    assert (info.timing.ticks * info.timing.base).tolist() == [Fraction(time, 1000) for time in MILLISECONDS]
    assert (info.timing.ticks * info.timing.base).tolist() == shown_times(clip)
    # With frames stored out of order, mp4 does not tell how long the last one is shown.
    assert b_frames == "3" and suffix != "mkv" or info.timing.duration == Fraction(1120, 1000)


@pytest.mark.parametrize("fps", [10, 40, NTSC, 0.5])
def test_a_constant_rate_is_made_on_request(tmp_path, fps):
    clip = make_clip(tmp_path / "a.mp4", flat_frames(LEVELS[:12]), MILLISECONDS, 1000, last=150, options={"bf": "0"})
    frames, info = read_video(clip, fps=fps)
    assert info.fps == fps and info.timing.is_constant and info.frames == len(frames) == max(1, round(1.2 * fps))
    for index, level in enumerate(levels_of(frames)):
        time, half, shown = 1000 * index / float(fps), 500 / float(fps), level // 10 - 1
        assert MILLISECONDS[shown] < time + half
        assert shown == 11 or MILLISECONDS[shown + 1] >= time + half


def test_one_stray_stamp_does_not_spoil_the_others(tmp_path):
    """Two frames with one stamp are pulled apart by a tick; a rate that nearly fits is not taken for one."""
    times = [0, 40, 80, 120, 123, 160, 200]
    frames, info = read_video(make_clip(tmp_path / "a.mp4", flat_frames(LEVELS[:7]), times, rate=1000))
    assert levels_of(frames) == LEVELS[:7] and info.times == pytest.approx([time / 1000 for time in times])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "keyint=6:open-gop=1:bframes=4:b-pyramid=normal"}),
        ("a.mkv", "libx265", {"x265-params": "log-level=error:keyint=6:open-gop=1:bframes=3"}),
        ("a.ts", "libx264", {"g": "6"}),
        ("a.h264", "libx264", {"g": "6"}),
    ],
)
def test_a_range_gives_the_very_frames_of_the_whole(tmp_path, name, codec, options):
    make_clip(tmp_path / name, flat_frames(LEVELS, 48, 64), rate=20, codec=codec, options=options)
    for first in range(0, 20, 5):
        clip = Clip(tmp_path / name, start=first / 20, end=1.0)
        assert levels_of(clip) == levels_of(clip) == LEVELS[first:20]
        assert clip.info.timing == Timing.constant(Fraction(20), 20 - first, clip.info.timing.origin, first == 0, False)


def test_frames_that_lean_on_what_was_cut_away_do_not_count(tmp_path):
    params = "log-level=error:keyint=8:min-keyint=8:open-gop=1:bframes=3:scenecut=0"
    whole = make_clip(tmp_path / "a.mp4", flat_frames(LEVELS, 48, 64), codec="libx265", options={"x265-params": params})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.mkv"), "w") as cut:
        stream, keys = cut.add_stream_from_template(source.streams.video[0], opaque=True), 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if keys > 1 and packet.size:
                packet.stream = stream
                cut.mux(packet)
    frames, info = read_video(tmp_path / "b.mkv")
    assert levels_of(frames) == LEVELS[8:] and info.frames == 16
