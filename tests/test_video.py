import errno
import os
import resource
import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from PIL import Image

from imvideoedit.data.strips import side_by_side, write_strip
from imvideoedit.data.video import iter_frames, open_video, probe, read_metadata, read_video, write_video
from imvideoedit.errors import UserError

NTSC = Fraction(30000, 1001)


def flat_frames(levels, height=32, width=48) -> np.ndarray:
    """Grey frames: of flat frames h264 loses next to nothing, so a level tells which frame it was."""
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def levels_of(video: np.ndarray) -> list[int]:
    """The levels of ``flat_frames``, rounded to tens."""
    return [int(round(frame.mean(), -1)) for frame in video]


def make_clip(path: Path, frames, times=None, rotation=0, pix_fmt="yuv420p", codec="libx264", sound=None, rate=20):
    """Write a clip with PyAV alone. ``times`` are in ticks of 1/rate s; ``sound`` names an audio codec (one second)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        for index, frame_HWC in enumerate(frames):
            frame = VideoFrame.from_ndarray(frame_HWC, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = times[index] if times else index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio:
            wave = (8000 * np.sin(np.arange(16000) * 0.2)).astype(np.int16)[None]
            heard = AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            heard.sample_rate, heard.pts = 16000, 0
            container.mux(audio.encode(heard))
            container.mux(audio.encode(None))
    return path


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets if packet.pts is not None]


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("fps", [NTSC, Fraction(16), Fraction(25, 2), Fraction(900, 49)])
def test_frames_rate_and_count_survive(tmp_path, count, fps):
    frames = flat_frames([20 * (i + 1) for i in range(count)])
    write_video(tmp_path / "a.mp4", frames, fps)
    video, info = read_video(tmp_path / "a.mp4")
    assert levels_of(video) == [20 * (i + 1) for i in range(count)]
    assert (info.frames, info.fps, info.width, info.height, info.rotation) == (count, fps, 48, 32, 0)
    assert info.duration == pytest.approx(float(count / fps)) and not info.has_audio
    assert probe(tmp_path / "a.mp4") == info


@pytest.mark.parametrize(("height", "width"), [(480, 854), (479, 853), (480, 853), (33, 34)])
def test_size_and_colour_survive(tmp_path, height, width):
    colours = [(200, 30, 40), (20, 180, 60), (40, 50, 220)]
    frames = np.stack([np.full((height, width, 3), colour, np.uint8) for colour in colours])
    write_video(tmp_path / "a.mp4", frames, 16)
    video, _ = read_video(tmp_path / "a.mp4")
    assert video.shape == frames.shape and video.dtype == np.uint8
    assert np.abs(video.astype(int) - frames).max() <= 5
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == ("yuv444p" if height % 2 or width % 2 else "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_frames_may_come_one_at_a_time(tmp_path):
    write_video(tmp_path / "a.mp4", (frame for frame in flat_frames([50, 100, 150])), 16)
    assert levels_of(iter_frames(tmp_path / "a.mp4")) == [50, 100, 150]
    assert levels_of(read_video(tmp_path / "a.mp4", max_frames=2)[0]) == [50, 100]
    info, frames = open_video(tmp_path / "a.mp4")
    assert info.frames == 3 and next(frames).shape == (32, 48, 3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_clips_stand_upright(tmp_path, rotation):
    stored = flat_frames([100, 100])
    stored[:, :16, :24] = 250  # a bright top left quarter
    clip = make_clip(tmp_path / "a.mp4", stored, rotation=rotation)
    video, info = read_video(clip)
    assert np.abs(video.astype(int) - np.rot90(stored, rotation // 90, axes=(1, 2)))[:, ::4, ::4].mean() < 4
    assert (info.height, info.width) == video.shape[1:3] == ((32, 48) if rotation == 180 else (48, 32))
    assert info.rotation == rotation % 360


def test_a_portrait_phone_clip_is_turned_clockwise(tmp_path):
    """Phones store portrait clips lying on their left side and ask for a clockwise turn, -90 for ffmpeg."""
    stored = flat_frames([100])
    stored[:, :, :24] = 250  # the left half of the stored picture becomes the top
    video, _ = read_video(make_clip(tmp_path / "a.mp4", stored, rotation=-90))
    assert video[0, :20].mean() > 240 and video[0, -20:].mean() < 110


def test_variable_rate_is_resampled_on_the_frames_times(tmp_path):
    times, levels = [0, 1, 2, 3, 4, 8, 12, 14], [20, 40, 60, 80, 100, 120, 140, 160]
    video, info = read_video(make_clip(tmp_path / "a.mp4", flat_frames(levels), times=times))
    last_tick = times[-1] + 1
    assert info.duration == pytest.approx(last_tick / 20, abs=0.1)
    assert info.frames == len(video) == round(info.duration * info.fps)
    shown = levels_of(video)
    for index, level in enumerate(shown):
        tick = float(index / info.fps * 20)
        begun = [time for time in times if time <= tick + float(20 / info.fps) / 2 + 1e-6]
        assert level == levels[len(begun) - 1]
    assert shown.count(100) > shown.count(20)


def test_matroska_with_millisecond_stamps_is_not_resampled(tmp_path):
    levels = [10 * i for i in range(1, 25)]
    video, info = read_video(make_clip(tmp_path / "a.mkv", flat_frames(levels), rate=24))
    assert levels_of(video) == levels and info.fps == 24


def test_ten_bit_clips_are_read(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", flat_frames([50, 200]), pix_fmt="yuv420p10le")
    assert levels_of(read_video(clip)[0]) == [50, 200]


def test_a_still_image_is_one_upright_frame(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    video, info = read_video(tmp_path / "a.png")
    assert np.array_equal(video[0], np.rot90(pixels, -1))
    assert (info.frames, info.width, info.height, info.fps) == (1, 9, 13, 1)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    assert read_video(tmp_path / "a.jpg")[0].shape == (1, 9, 13, 3)


def test_sound_is_copied_packet_for_packet(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", flat_frames(range(0, 200, 10)), sound="aac")
    video, info = read_video(clip)
    assert info.has_audio and len(video) == 20
    write_video(tmp_path / "b.mp4", 255 - video, info.fps, audio_from=clip)
    assert sound_packets(tmp_path / "b.mp4") == sound_packets(clip)
    assert probe(tmp_path / "b.mp4").has_audio


def test_sound_ends_with_a_shortened_picture(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", flat_frames(range(0, 200, 10)), sound="aac")
    video, info = read_video(clip, max_frames=5)
    write_video(tmp_path / "b.mp4", video, info.fps, audio_from=clip)
    copied, source = sound_packets(tmp_path / "b.mp4"), sound_packets(clip)
    assert copied == source[: len(copied)]
    assert copied[-1][0] < Fraction(1, 4) <= source[len(copied)][0]


def test_sound_that_mp4_cannot_hold_is_encoded(tmp_path):
    clip = make_clip(tmp_path / "a.mov", flat_frames(range(0, 200, 10)), sound="pcm_mulaw")
    video, info = read_video(clip)
    write_video(tmp_path / "b.mp4", video, info.fps, audio_from=clip)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert heard.shape[1] == pytest.approx(16000, abs=2048) and heard.std() == pytest.approx(
        8000 / 32768 / 2**0.5, rel=0.1
    )


def test_metadata_is_read_back(tmp_path):
    texts = {"imvideoedit": '{"prompt": "ein blauer Fuß, 魚"}', "title": "a = b; c"}
    write_video(tmp_path / "a.mp4", flat_frames([100]), 16, metadata=texts)
    assert texts.items() <= read_metadata(tmp_path / "a.mp4").items()


def test_what_is_no_video_is_refused(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", flat_frames([100] * 5))
    files = {
        "empty.mp4": b"",
        "text.txt": b"hello\n" * 500,
        "text.mp4": b"hello\n" * 500,
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "cut.mp4": clip.read_bytes()[:700],
        "noise.mp4": np.random.default_rng(0).bytes(5000),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in [*files, "gone.mp4", "."]:
        for read in (probe, read_video, iter_frames):
            with pytest.raises(UserError, match=name):
                read(tmp_path / name)
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(UserError, match="only sound"):
        probe(tmp_path / "a.wav")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_video(tmp_path / "a.mp4", flat_frames([100]), 16)
    before = (tmp_path / "a.mp4").read_bytes()

    def breaking():
        yield from flat_frames([10, 20])
        raise RuntimeError("the editor failed")

    with pytest.raises(RuntimeError, match="the editor failed"):
        write_video(tmp_path / "a.mp4", breaking(), 16)
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "a.mp4", [], 16)
    with pytest.raises(ValueError, match="frame 2"):
        write_video(tmp_path / "a.mp4", [np.zeros((32, 48, 3), np.uint8), np.zeros((32, 50, 3), np.uint8)], 16)
    with pytest.raises(UserError, match="end in .mp4"):
        write_video(tmp_path / "a.avi", flat_frames([100]), 16)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("limit", [0, 3000])
def test_a_refusing_disk_is_reported(tmp_path, limit):
    """The system's limit of a file's size stands in for a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        with pytest.raises(UserError, match=f"could not write .*a.mp4: {os.strerror(errno.EFBIG)}"):
            write_video(tmp_path / "a.mp4", noise, 16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_strips_and_side_by_side_show_the_frames(tmp_path):
    video = flat_frames([0, 50, 100, 150, 200], 8, 10)
    both = side_by_side(video, 255 - video)
    assert both.shape == (5, 8, 20, 3) and np.array_equal(both[:, :, 10:], 255 - video)
    with pytest.raises(ValueError, match="unequal"):
        side_by_side(video, video[:4])
    write_strip(tmp_path / "s.png", {"source": video, "edit": video[:1]}, columns=3, scale=2)
    strip = np.asarray(Image.open(tmp_path / "s.png"))
    middle = strip[18 + 8]
    assert [middle[column * 24 + 10].tolist() for column in range(3)] == [[0] * 3, [100] * 3, [200] * 3]
