import errno
import os
import resource
import signal
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.colour import Colour
from imvideoedit.video.encoder import choose_codec
from imvideoedit.video.info import VideoInfo
from imvideoedit.video.reader import Clip, VideoWriter, read_metadata, read_video, write_video
from imvideoedit.video.timing import Timing
from tests.clips import colour_tags, flat_frames, levels_of

NTSC = Fraction(30000, 1001)
UNEVEN = Timing(Fraction(1, 90_000), np.array([0, 3003, 6100, 31_000, 31_500, 45_000]), 450_000)


def info_like(timing: Timing, height=48, width=64, **kept) -> VideoInfo:
    return VideoInfo(width, height, has_audio=False, rotation=0, timing=timing, **kept)


def noise(count=6, height=48, width=64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("fps", [NTSC, Fraction(16), Fraction(25, 2), Fraction(900, 49)])
def test_frames_rate_and_count_survive(tmp_path, count, fps):
    frames = flat_frames([20 * (i + 1) for i in range(count)])
    write_video(tmp_path / "a.mp4", (frame for frame in frames), fps)
    video, info = read_video(tmp_path / "a.mp4")
    assert levels_of(video) == [20 * (i + 1) for i in range(count)]
    assert (info.frames, info.fps, info.width, info.height, info.rotation) == (count, fps, 48, 32, 0)
    assert info.timing.duration == count / fps and not info.has_audio
    assert Clip(tmp_path / "a.mp4").info == info


@pytest.mark.parametrize("timing", [UNEVEN, Timing.constant(NTSC, 1), Timing.constant(NTSC, 6), UNEVEN.part(0, 1)])
@pytest.mark.parametrize(
    ("name", "codec"),
    [(f"a.{suffix}", codec) for codec in ("h264", "h265", "lossless") for suffix in ("mp4", "mov", "mkv")]
    + [("a.mp4", "av1"), ("a.webm", "av1"), ("a.mkv", "av1")],
)
def test_every_codec_keeps_times(tmp_path, name, codec, timing):
    frames = flat_frames([40 * i + 20 for i in range(len(timing))], 48, 64)
    with VideoWriter(tmp_path / name, info_like(timing), codec=codec) as writer:
        for frame in frames:
            writer.add(frame)
    video, info = read_video(tmp_path / name)
    assert levels_of(video) == levels_of(frames)
    if name.endswith(("mp4", "mov")) or timing.is_constant and len(timing) > 1:
        assert (info.timing.ticks * info.timing.base).tolist() == (timing.ticks * timing.base).tolist()
        assert info.timing.duration == timing.duration
    else:
        assert info.times == pytest.approx(timing.seconds, abs=1e-3) and info.frames == len(timing)
        assert info.duration == pytest.approx(float(timing.duration), abs=1e-3)


@pytest.mark.parametrize(("height", "width"), [(480, 854), (479, 853), (480, 853), (33, 34)])
def test_size_and_colour_survive(tmp_path, height, width):
    colours = [(200, 30, 40), (20, 180, 60), (40, 50, 220)]
    frames = np.stack([np.full((height, width, 3), colour, np.uint8) for colour in colours])
    write_video(tmp_path / "a.mp4", frames, 16)
    video, info = read_video(tmp_path / "a.mp4")
    assert video.shape == frames.shape and video.dtype == np.uint8
    assert np.abs(video.astype(int) - frames).max() <= 3
    assert info.colour.pixel_format == ("yuv444p" if height % 2 or width % 2 else "yuv420p")
    assert colour_tags(tmp_path / "a.mp4") == (1, 1, 1, 1)


HLG, FULL, SILENT = Colour(1, 9, 9, 18, 10, "yuv420p10le"), Colour(2, 5, 1, 1), Colour(0, 2, 2, 2)


@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
@pytest.mark.parametrize(
    ("codec", "colour", "kept"),
    [
        ("h264", HLG, (1, 9, 9, 18)),
        ("h264", FULL, (2, 5, 1, 1)),
        ("h264", SILENT, (0, 2, 2, 2)),
        ("h265", HLG, (1, 9, 9, 18)),
        ("h265", FULL, (2, 5, 1, 1)),
        ("av1", HLG, (1, 9, 9, 18)),
        ("av1", SILENT, (1, 2, 2, 2)),  # AV1 always states the range
        ("h264", Colour(2, 0, 1, 13, 8, "gbrp"), (1, 1, 1, 13)),  # RGB becomes usual YUV
    ],
)
def test_colour_depth_and_pixels_are_the_sources(tmp_path, codec, colour, kept, size):
    like = info_like(Timing.constant(Fraction(24), 3), colour=colour, aspect=Fraction(4, 3))
    frames = np.full((3, *size, 3), (200, 90, 40), np.uint8)
    write_video(tmp_path / "a.mp4", frames, like=like, codec=codec)
    video, info = read_video(tmp_path / "a.mp4")
    assert video.shape[1:3] == size and np.abs(video.astype(int) - frames).max() <= 4
    assert colour_tags(tmp_path / "a.mp4") == kept
    assert (info.colour.bits, info.aspect) == (colour.bits, Fraction(4, 3))


def test_chroma_is_kept_as_fine_as_the_source_has_it(tmp_path):
    like = info_like(Timing.constant(Fraction(24), 2), colour=Colour(pixel_format="yuv422p10le", bits=10))
    write_video(tmp_path / "a.mp4", flat_frames([90, 90]), like=like)
    assert Clip(tmp_path / "a.mp4").info.colour.pixel_format == "yuv422p10le"


def test_a_turned_frame_is_not_taken_for_one_of_another_matrix(tmp_path):
    """Players go by the height where a file is silent: BT.601 for what was stored 450 high, BT.709 for 800."""
    like = replace(info_like(Timing.constant(Fraction(24), 1), 800, 450, colour=SILENT), rotation=90)
    write_video(tmp_path / "a.mp4", np.full((1, 800, 450, 3), (200, 90, 40), np.uint8), like=like)
    assert colour_tags(tmp_path / "a.mp4")[1] == 6
    assert np.abs(read_video(tmp_path / "a.mp4")[0].astype(int) - (200, 90, 40)).max() <= 3


def test_writing_and_reading_again_and_again_darkens_nothing(tmp_path):
    ramp = np.linspace(20, 230, 64).astype(np.uint8)
    first = frames = np.broadcast_to(ramp[None, None, :, None], (2, 48, 64, 3))
    for _ in range(5):
        write_video(tmp_path / "a.mp4", frames, 24, crf=4)
        frames, _ = read_video(tmp_path / "a.mp4")
    assert np.abs((frames.astype(int) - first).mean()) < 0.3


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
def test_lossless_is_exact_to_the_bit(tmp_path, suffix, size):
    frames = noise(7, *size)
    write_video(tmp_path / f"a.{suffix}", frames, 24, codec="lossless")
    assert np.array_equal(read_video(tmp_path / f"a.{suffix}")[0], frames)


def test_pngs_are_exact_and_carry_the_texts(tmp_path):
    frames = noise(3)
    write_video(tmp_path / "out", frames, 24, codec="png", metadata={"title": "Fuß"})
    assert sorted(os.listdir(tmp_path / "out")) == ["000000.png", "000001.png", "000002.png"]
    for path, frame in zip(sorted((tmp_path / "out").iterdir()), frames, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), frame)
    assert read_metadata(tmp_path / "out") == {"title": "Fuß"}
    with pytest.raises(UserError, match="out exists already"):
        write_video(tmp_path / "out", frames, 24, codec="png")
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("name", "codec", "why"),
    [
        ("a.avi", None, "must end in .mp4, .mov, .mkv or .webm"),
        ("out", None, "must end in .mp4"),
        ("a.webm", "h264", "must end in .mp4, .mov or .mkv, or change the codec to av1"),
        ("a.mov", "av1", "must end in .webm, .mp4 or .mkv, or change the codec to h264"),
        ("a.mp4", "png", "makes a folder; name it .*/a$"),
        ("a.mp4", "divx", "no codec divx; choose h264, h265, av1, lossless or png"),
    ],
)
def test_a_name_that_does_not_fit_the_codec_is_told(tmp_path, name, codec, why):
    for refuse in (choose_codec, lambda path, codec: VideoWriter(path, fps=24, codec=codec)):
        with pytest.raises(UserError, match=why):
            refuse(tmp_path / name, codec)
    assert choose_codec("a.MP4") == "h264" and choose_codec("a.webm") == "av1" and choose_codec("a", "png") == "png"


def test_wrong_arguments_are_told_before_any_work(tmp_path):
    like = info_like(Timing.constant(Fraction(24), 2))
    for arguments in ({}, {"like": like, "fps": 24}):
        with pytest.raises(ValueError, match="either like or fps"):
            VideoWriter(tmp_path / "a.mp4", **arguments)
    with pytest.raises(UserError, match="crf is 60; for h264 it lies between 0 and 51"):
        VideoWriter(tmp_path / "a.mp4", like, crf=60)
    with pytest.raises(UserError, match="lossless loses nothing"):
        VideoWriter(tmp_path / "a.mp4", like, crf=1, codec="lossless")
    with pytest.raises(UserError, match="not square as av1; name it .*a.mp4"):
        VideoWriter(tmp_path / "a.webm", replace(like, aspect=Fraction(4, 3)))
    with pytest.raises(UserError, match="no file .*gone.mp4"), VideoWriter(tmp_path / "a.mp4", like, sound="gone.mp4"):
        raise AssertionError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", None), ("a.mkv", "h265"), ("out", "png")])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, UserError])
def test_an_interruption_leaves_nothing(tmp_path, name, codec, stop):
    with pytest.raises(stop, match="now"), VideoWriter(tmp_path / name, fps=24, codec=codec) as writer:
        for frame in noise(50):
            writer.add(frame)
        raise stop("now")
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_video(tmp_path / "a.mp4", flat_frames([100]), 16)
    before = (tmp_path / "a.mp4").read_bytes()
    two = info_like(Timing.constant(Fraction(24), 2))
    for frames, arguments, why in [
        ([], {"fps": 16}, "no frames"),
        ([np.zeros((32, 48, 3), np.uint8), np.zeros((32, 50, 3), np.uint8)], {"fps": 16}, "frame 2"),
        ([np.zeros((32, 48, 3), np.float32)], {"fps": 16}, "frame 1 is float32"),
        (noise(1), {"like": two}, "only 1 of a video's 2 frames"),
        (noise(3), {"like": two}, "frame 3 of a video of 2 frames"),
    ]:
        with pytest.raises(ValueError, match=why):
            write_video(tmp_path / "a.mp4", frames, **arguments)
    assert (tmp_path / "a.mp4").read_bytes() == before and os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", None), ("out", "png")])
@pytest.mark.parametrize("limit", [0, 3000])
def test_a_refusing_disk_is_reported(tmp_path, limit, name, codec):
    """The system's limit of a file's size stands in for a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match=f"could not write .*{name}: {os.strerror(errno.EFBIG)}; check"):
            write_video(tmp_path / name, noise(), 16, codec=codec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", None), ("out", "png")])
def test_a_folder_that_cannot_be_written_to_is_told_on_entering(tmp_path, name, codec):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"could not write .*{name}: (Not a directory|File exists); check"):
        with VideoWriter(tmp_path / "file" / name, fps=24, codec=codec):
            raise AssertionError


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="only Linux tells how a thread is scheduled")
@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_no_encoder_changes_how_the_process_is_scheduled(tmp_path, codec):
    # Run by root, SVT-AV1 makes its threads and the calling one real-time.
    def policies() -> set[int]:
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    before = policies()
    frames = noise(6)
    with VideoWriter(tmp_path / "a.mp4", info_like(UNEVEN), codec=codec) as writer:
        for frame_HWC in frames:
            writer.add(frame_HWC)
            assert policies() == before
    assert policies() == before
