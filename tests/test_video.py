from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.video.reader import Clip, read_metadata, read_video, write_video
from imvideoedit.video.strips import side_by_side, write_strip
from tests.clips import flat_frames, levels_of, make_clip


def test_a_clip_is_read_as_often_as_wanted(tmp_path):
    path = make_clip(tmp_path / "a.mp4", flat_frames([50, 100, 150]), sounds=["aac"])
    clip = Clip(path)
    assert len(clip) == 3 and clip.info == Clip(path).info and clip.info.has_audio
    assert levels_of(clip) == levels_of(clip) == [50, 100, 150]
    assert levels_of(read_video(path, max_frames=2)[0]) == [50, 100]
    assert read_video(path, max_frames=2)[1].frames == 2
    assert next(iter(clip)).shape == (32, 48, 3)
    assert levels_of(Clip(path, start=0.05, end=0.1)) == [100]
    assert Clip(path, fps=5).info.frames == len(Clip(path, fps=5)) == 1


def test_a_range_that_a_file_does_not_have_is_refused(tmp_path):
    path = make_clip(tmp_path / "a.mp4", flat_frames([50, 100, 150]))
    for read in (Clip, read_video):
        with pytest.raises(UserError, match="start is 9 s, but .*a.mp4 lasts 0.15 s"):
            read(path, start=9)
        with pytest.raises(UserError, match="fps is -1"):
            read(path, fps=-1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotated_and_mirrored_clips_stand_upright(tmp_path, rotation, mirrored):
    stored = flat_frames([100, 100])
    stored[:, :16, :24] = 250  # a bright top left quarter
    stored[:, 16:, :24] = 20
    video, info = read_video(make_clip(tmp_path / "a.mp4", stored, rotation=rotation, mirrored=mirrored))
    expected = np.rot90(stored, rotation // 90, axes=(1, 2))
    expected = expected[:, :, ::-1] if mirrored else expected
    assert np.abs(video.astype(int) - expected)[:, ::4, ::4].mean() < 4
    assert (info.height, info.width) == video.shape[1:3] == ((32, 48) if rotation % 180 == 0 else (48, 32))
    assert mirrored or info.rotation == rotation % 360


def test_a_portrait_phone_clip_is_turned_clockwise(tmp_path):
    """Phones store portrait clips lying on their left side and ask for a clockwise turn, -90 for ffmpeg."""
    stored = flat_frames([100])
    stored[:, :, :24] = 250  # the left half of the stored frame becomes the top
    video, _ = read_video(make_clip(tmp_path / "a.mp4", stored, rotation=-90))
    assert video[0, :20].mean() > 240 and video[0, -20:].mean() < 110


def test_what_a_file_says_about_colour_and_pixels_is_read(tmp_path):
    make_clip(tmp_path / "a.mp4", flat_frames([90]), pix_fmt="yuv420p10le", tags=(1, 9, 9, 18), aspect=Fraction(4, 3))
    info = Clip(tmp_path / "a.mp4").info
    assert tuple(vars(info.colour).values()) == (1, 9, 9, 18, 10, "yuv420p10le") and info.aspect == Fraction(4, 3)
    make_clip(tmp_path / "b.mp4", flat_frames([90]), rotation=90, aspect=Fraction(4, 3))
    assert Clip(tmp_path / "b.mp4").info.aspect == Fraction(3, 4)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuvj420p"])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colours_are_read_as_they_were_meant(tmp_path, pix_fmt, matrix):
    colours = np.array([(200, 30, 40), (20, 180, 60), (40, 50, 220), (0, 0, 0), (255, 255, 255)], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (5, 32, 48, 3))
    full = 2 if pix_fmt == "yuvj420p" else 1
    video, info = read_video(make_clip(tmp_path / "a.mp4", frames, pix_fmt=pix_fmt, tags=(full, matrix, 1, 1)))
    assert np.abs(video.astype(int) - frames).max() <= 4 and info.colour.matrix == matrix


def test_a_still_image_is_one_upright_frame(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    video, info = read_video(tmp_path / "a.png")
    assert np.array_equal(video[0], np.rot90(pixels, -1))
    assert (info.frames, info.width, info.height, info.fps) == (1, 9, 13, 1)
    assert read_video(tmp_path / "a.png", fps=4)[0].shape == (4, 13, 9, 3)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    assert read_video(tmp_path / "a.jpg")[0].shape == (1, 9, 13, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_metadata_is_read_back(tmp_path, suffix):
    texts = {"imvideoedit": '{"prompt": "ein blauer Fuß, 魚"}', "title": "a = b; c"}
    write_video(tmp_path / f"a.{suffix}", flat_frames([100]), 16, metadata=texts)
    assert texts.items() <= read_metadata(tmp_path / f"a.{suffix}").items()


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
        for read in (Clip, read_video, read_metadata):
            with pytest.raises(UserError, match=name) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(UserError, match="only sound"):
        Clip(tmp_path / "a.wav")


def spoilt(path: Path, frame: int, kept: int = 0) -> Path:
    """Overwrite what one frame was stored as, but for its first bytes."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data, (place, size) = bytearray(path.read_bytes()), packets[frame]
    data[place + kept : place + size] = bytes(size - kept)
    path.write_bytes(data)
    return path


def test_damage_in_the_middle_is_told_while_reading(tmp_path):
    make_clip(tmp_path / "a.avi", flat_frames(range(20, 180, 20)), codec="mjpeg", pix_fmt="yuvj420p")
    frames = iter(Clip(spoilt(tmp_path / "a.avi", 4)))
    assert levels_of(next(frames) for _ in range(4)) == [20, 40, 60, 80]
    with pytest.raises(UserError, match="a.avi is damaged after frame or packet 4"):
        next(frames)


def test_a_frame_that_cannot_be_decoded_does_not_shift_the_others(tmp_path):
    options = {"x265-params": "log-level=error:bframes=0:keyint=4:min-keyint=4:scenecut=0"}
    make_clip(tmp_path / "a.mp4", flat_frames(range(20, 180, 20), 48, 64), codec="libx265", options=options)
    video, info = read_video(spoilt(tmp_path / "a.mp4", 3, kept=4))
    assert levels_of(video) == [20, 40, 60, 60, 100, 120, 140, 160] and info.frames == 8


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
