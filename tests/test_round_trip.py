"""Odd clips, read and written again: nothing about them may change but what the codec loses."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from imvideoedit.video.reader import Clip, VideoWriter, read_metadata, read_video, write_video
from tests.clips import (
    SOUND_RATE,
    colour_tags,
    flat_frames,
    levels_of,
    make_clip,
    shown_times,
    sound_packets,
)

PHONE = [0, 3000, 6010, 9002, 11_990, 18_700, 21_003, 24_001, 40_500, 43_507]  # ticks of 1/90000 s, one is late
HLG, FULL = (1, 9, 9, 18), (2, 5, 1, 1)


@dataclass(frozen=True)
class Odd:
    """A clip and what must be found again."""

    name: str
    count: int
    size: tuple[int, int] = (32, 48)
    times: list[int] | None = None
    rate: Fraction = Fraction(30000, 1001)
    made: dict[str, Any] = field(default_factory=dict)
    turned: bool = False
    bits: int = 8

    @property
    def seconds(self) -> list[Fraction]:
        return [time / self.rate for time in self.times or range(self.count)]

    @property
    def duration(self) -> Fraction:
        return self.seconds[-1] + self.made.get("last", 1) / self.rate


ODD = {
    "rotated": Odd("a.mp4", 5, made={"rotation": -90, "sounds": ["aac"], "tags": FULL}, turned=True),
    "mirrored": Odd("a.mov", 5, made={"rotation": 90, "mirrored": True}, turned=True),
    "variable": Odd("a.mp4", 10, (32, 48), PHONE, Fraction(90_000), {"last": 5555, "options": {"bf": "0"}}),
    "variable and sound": Odd(
        "a.mov", 10, (32, 48), PHONE, Fraction(90_000), {"last": 9, "options": {"bf": "0"}, "sounds": ["aac"]}
    ),
    "sound": Odd("a.mp4", 30, made={"sounds": ["aac", "ac3"]}),
    "odd size": Odd("a.mp4", 3, (479, 853), made={"pix_fmt": "yuv444p"}),
    "portrait": Odd("a.mp4", 4, (96, 54), made={"aspect": Fraction(4, 3)}),
    "one frame": Odd("a.mp4", 1, made={"sounds": ["aac"]}),
    "two frames": Odd("a.mkv", 2),
    "4k+2 frames": Odd("a.mp4", 10, rate=Fraction(16)),
    "ten bits": Odd("a.mp4", 5, made={"pix_fmt": "yuv420p10le", "tags": HLG}, bits=10),
    "no stamps": Odd("a.h264", 9),
    "no stamps that help": Odd("a.avi", 9, made={"sounds": ["pcm_s16le"]}),
    "transport stream": Odd("a.ts", 9, made={"tags": (1, 1, 1, 1)}),
    "one long frame": Odd("a.mp4", 1, (32, 48), [0], Fraction(1000), {"last": 7000}),
}


def written_again(clip: Clip, path: Path, **options: Any) -> Path:
    with VideoWriter(path, clip.info, sound=clip.path, **options) as writer:
        for frame in clip:
            writer.add(frame)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_clip_comes_back_as_it_was(tmp_path, odd, suffix):
    levels = [20 * (i % 11) + 20 for i in range(odd.count)]
    source = make_clip(tmp_path / odd.name, flat_frames(levels, *odd.size), odd.times, odd.rate, **odd.made)
    output = written_again(Clip(source), tmp_path / f"b.{suffix}")
    info = Clip(output).info
    assert levels_of(Clip(output)) == levels
    assert shown_times(output) == odd.seconds == (info.timing.ticks * info.timing.base).tolist()
    assert info.timing.duration == odd.duration
    assert (info.height, info.width) == (odd.size[::-1] if odd.turned else odd.size) and info.rotation == 0
    assert info.aspect == odd.made.get("aspect", 1) and info.colour.bits == odd.bits
    if "tags" in odd.made:
        assert colour_tags(output) == colour_tags(source) == odd.made["tags"]
    sounds = odd.made.get("sounds", [])
    assert info.has_audio == bool(sounds)
    for track in range(len(sounds)):
        assert sound_packets(output, track) == sound_packets(source, track)


@pytest.mark.parametrize("odd", [odd for odd in ODD.values() if not odd.times], ids=lambda odd: odd.name)
def test_matroska_keeps_constant_rates_and_sound(tmp_path, odd):
    source = make_clip(tmp_path / odd.name, flat_frames([90] * odd.count, *odd.size), odd.times, odd.rate, **odd.made)
    output = written_again(Clip(source), tmp_path / "b.mkv")
    timing = Clip(output).info.timing
    assert (timing.ticks * timing.base).tolist() == odd.seconds and timing.duration == odd.duration
    for track in range(len(odd.made.get("sounds", []))):
        assert [data for _, data in sound_packets(output, track)] == [data for _, data in sound_packets(source, track)]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(("start", "end"), [(0.5, 1.25), (None, 0.7), (0.71, None)])
def test_a_range_takes_its_sound_along(tmp_path, suffix, start, end):
    source = make_clip(tmp_path / "a.mp4", flat_frames([20, 200] * 20), sounds=["aac", "ac3"])
    clip = Clip(source, start, end)
    output = written_again(clip, tmp_path / f"b.{suffix}", metadata={"comment": "cut"})
    info = Clip(output).info
    assert levels_of(Clip(output)) == levels_of(clip) and info.timing.duration == clip.info.timing.duration
    assert read_metadata(output)["comment"] == "cut"
    begun, whole = float(clip.info.timing.origin), start is None
    for track in range(2):
        copied, given = sound_packets(output, track), sound_packets(source, track)
        first = [data for _, data in given].index(copied[0][1])
        assert [data for _, data in copied] == [data for _, data in given[first : first + len(copied)]]
        # What is heard at the range's first frame, and after its last one's end, told by the source's clock.
        length = given[2][0] - given[1][0]
        assert first == 0 if whole else given[first][0] <= begun < given[first][0] + length
        rest = given[first + len(copied) :]
        assert (rest == []) if end is None else rest[0][0] >= begun + info.duration - 1e-9
        shift = copied[-1][0] - info.timing.origin - (given[first + len(copied) - 1][0] - Fraction(begun))
        assert abs(shift) <= Fraction(2, 1000)


def test_sound_that_begins_before_the_frame_is_kept(tmp_path):
    make_clip(tmp_path / "a.mp4", flat_frames([20, 200] * 5), times=list(range(7, 17)), sounds=["aac"])
    output = written_again(Clip(tmp_path / "a.mp4"), tmp_path / "b.mp4")
    assert sound_packets(output) == sound_packets(tmp_path / "a.mp4")
    assert Clip(output).info.timing == Clip(tmp_path / "a.mp4").info.timing
    assert Clip(output).info.timing.origin == Fraction(7, 20)


@pytest.mark.parametrize(("codec", "suffix", "heard"), [("pcm_mulaw", "mp4", "aac"), ("aac", "webm", "opus")])
def test_sound_that_the_format_cannot_hold_is_encoded(tmp_path, codec, suffix, heard):
    source = make_clip(tmp_path / "a.mov", flat_frames(range(0, 200, 10)), sounds=[codec])
    output = written_again(Clip(source), tmp_path / f"b.{suffix}")
    with av.open(str(output)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.codec.canonical_name == heard
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])
        assert len(wave) / stream.rate == pytest.approx(1, abs=0.15)
    assert wave.std() == pytest.approx(8000 / 32768 / 2**0.5, rel=0.1)


def test_without_a_source_to_follow_sound_ends_with_the_frames(tmp_path):
    source = make_clip(tmp_path / "a.mp4", flat_frames(range(0, 200, 10)), sounds=["aac", "ac3"])
    for count in (20, 5):
        frames, info = read_video(source, max_frames=count)
        write_video(tmp_path / "b.mp4", frames, info.fps, audio_from=source)
        for track in range(2):
            copied, given = sound_packets(tmp_path / "b.mp4", track), sound_packets(source, track)
            assert copied == given[: len(copied)]
            assert copied == given if count == 20 else copied[-1][0] < Fraction(1, 4) <= given[len(copied)][0]


def test_a_rate_that_is_asked_for_is_written_with_all_the_sound(tmp_path):
    source = make_clip(tmp_path / "a.mp4", flat_frames(range(0, 200, 10)), sounds=["aac"])
    output = written_again(Clip(source, fps=8), tmp_path / "b.mp4")
    assert Clip(output).info.fps == 8 and Clip(output).info.frames == 8
    assert sound_packets(output) == sound_packets(source)
    assert sound_packets(source)[-1][0] > 1 - Fraction(1024, SOUND_RATE)


COPY = """
import sys
from imvideoedit.video.reader import Clip, VideoWriter
clip = Clip(sys.argv[1])
with VideoWriter(sys.argv[2], clip.info, sound=sys.argv[1]) as writer:
    for frame in clip:
        writer.add(frame)
print(open("/proc/self/status").read())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak memory")
def test_memory_does_not_grow_with_length(tmp_path):
    peaks = []
    for count in (300, 3000):
        frames = np.broadcast_to(np.full((1, 1, 1, 1), 90, np.uint8), (count, 64, 64, 3))
        source = make_clip(tmp_path / f"{count}.mp4", frames, sounds=["aac"])
        command = [sys.executable, "-c", COPY, str(source), str(tmp_path / "b.mp4")]
        status = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)
    # 2,700 more frames of 12 kB would be 32 MiB if they were held; their stamps are not a hundredth of that.
    assert peaks[1] - peaks[0] < 12
