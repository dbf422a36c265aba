"""What a container carries beside pictures and sound reaches the output, or is named once."""

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from imvideoedit.common.errors import Note, exit_cleanly
from imvideoedit.video.reader import Clip, VideoWriter
from tests.clips import flat_frames, levels_of, make_clip, sound_packets
from tests.odd_files import make_rich_clip, make_transparent_clip

STRIPED = np.stack([np.where(np.arange(64)[:, None, None] % 2, 200, 40)] * 64, 1)[:, :, 0].repeat(3, -1)


def written(source: Path, output: Path, **part) -> list[str]:
    """Write the source again, and give the notes."""
    clip = Clip(source, **part)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with VideoWriter(output, clip.info, source=source, metadata={"imvideoedit": "{}"}) as writer:
            for frame in clip:
                writer.add(frame)
    assert all(each.category is Note for each in caught)
    return [str(each.message) for each in caught]


def chapters(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        found = container.chapters()
    return [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"]) for c in found]


def subtitles(path: Path) -> list[tuple[float, float, bytes]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.subtitles[0]) if packet.size]
    return [
        (round(float(p.pts * p.time_base), 3), round(float(p.duration * p.time_base), 3), bytes(p)) for p in packets
    ]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".webm"])
def test_title_chapters_and_names_are_kept_and_lost_subtitles_named(tmp_path, suffix):
    source = make_rich_clip(tmp_path / "a.mkv", flat_frames([20] * 30))
    output = tmp_path / f"b{suffix}"
    notes = written(source, output)
    lost = [] if suffix == ".mkv" else [f"{output} does not keep of the source: 1 subtitle track (srt)"]
    assert notes == lost
    assert chapters(output) == [(n, n + 1, f"Chapter {n}") for n in range(3)]
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "A title"
        video, sound = container.streams.video[0].metadata, container.streams.audio[0].metadata
        key = "title" if suffix in (".mkv", ".webm") else "handler_name"
        assert (
            video[key] == "Left camera"
            and sound[key] == "Commentary"
            and sound["language"] == ("ger" if suffix == ".mov" else "deu")
        )
        kept = [stream.metadata["language"] for stream in container.streams.subtitles]
        assert kept == (["fra"] if suffix == ".mkv" else [])
    if suffix == ".mkv":
        assert subtitles(output) == [(n + 0.2, 0.7, f"Word {n}".encode()) for n in range(3)]


def test_names_survive_a_way_through_mp4(tmp_path):
    source = make_rich_clip(tmp_path / "a.mkv", flat_frames([20] * 20))
    written(source, tmp_path / "b.mp4")
    assert written(tmp_path / "b.mp4", tmp_path / "c.mkv") == [
        f"{tmp_path / 'c.mkv'} does not keep of the source: the text 'imvideoedit'"
    ]
    assert chapters(tmp_path / "c.mkv") == chapters(source)
    with av.open(str(tmp_path / "c.mkv")) as container:
        names = [stream.metadata.get("title") for stream in container.streams]
    assert names == ["Left camera", "Commentary"]


def test_a_range_shows_its_own_chapters_and_subtitles(tmp_path):
    source = make_rich_clip(tmp_path / "a.mkv", flat_frames([20] * 40))
    written(source, tmp_path / "b.mkv", start=1.5, end=3.5)
    half = Fraction(1, 2)
    assert chapters(tmp_path / "b.mkv") == [
        (0, half, "Chapter 1"),
        (half, 3 * half, "Chapter 2"),
        (3 * half, 2, "Chapter 3"),
    ]
    # The first one is shown since 1.2 s, so 0.4 s of it are left.
    assert subtitles(tmp_path / "b.mkv") == [(0, 0.4, b"Word 1"), (0.7, 0.7, b"Word 2"), (1.7, 0.7, b"Word 3")]


def test_interlacing_and_transparency_are_named_and_nothing_else_is(tmp_path):
    plain = make_clip(tmp_path / "plain.mp4", flat_frames([20, 80]), sounds=["aac"])
    assert written(plain, tmp_path / "a.mp4") == []
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1:interlaced=1"}
    fields = make_clip(tmp_path / "fields.mp4", np.stack([STRIPED] * 3).astype(np.uint8), options=options)
    assert Clip(fields).info.interlaced
    (note,) = written(fields, tmp_path / "b.mp4")
    assert "interlacing (both fields are in one frame; deinterlace first, such as by ffmpeg -vf bwdif)" in note
    clear = np.zeros((64, 64, 4), np.uint8)
    for name in ("c.mp4", "c.png"):
        (note,) = written(make_transparent_clip(tmp_path / "clear.mov", clear, 1), tmp_path / name)
        assert note == f"{tmp_path / name} does not keep of the source: transparency (shown on white)"


def test_hdr_data_beside_the_frames_is_named(tmp_path):
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"x265-params": f"log-level=error:asm=0:hdr10=1:repeat-headers=1:{display}:max-cll=1000,400"}
    tags = (1, 9, 9, 16)
    source = make_clip(
        tmp_path / "hdr.mkv",
        flat_frames([20, 80], 64, 64),
        codec="libx265",
        pix_fmt="yuv420p10le",
        tags=tags,
        options=options,
    )
    assert set(Clip(source).info.hdr) == {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}
    (note,) = written(source, tmp_path / "b.mp4")
    assert note.endswith("does not keep of the source: HDR data beside the frames")


def test_a_note_is_one_line_of_a_command():
    shown = []
    usual = warnings.formatwarning

    @exit_cleanly
    def command():
        for kind in (Note, UserWarning):
            shown.append(warnings.formatwarning("a.mp4 does not keep: chapters\nand more", kind, "file.py", 7, ""))

    command()
    assert shown[0] == "note: a.mp4 does not keep: chapters and more\n"
    assert "file.py:7: UserWarning" in shown[1] and warnings.formatwarning is usual


def test_joined_transport_streams_are_read_on_with_times_that_rise(tmp_path):
    levels = [20, 60, 100, 140, 180] * 4
    part = make_clip(tmp_path / "part.ts", flat_frames(levels), sounds=["aac"])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    clip = Clip(joined)
    assert len(clip) == 40 and clip.info.fps == 20 and levels_of(clip) == levels * 2
    written(joined, tmp_path / "out.mp4")
    assert levels_of(Clip(tmp_path / "out.mp4")) == levels * 2
    before, after = sound_packets(part), sound_packets(tmp_path / "out.mp4")
    assert len(after) == 2 * len(before)
    steps = [float(b[0] - a[0]) for a, b in zip(after, after[1:], strict=False)]
    assert max(abs(step - 1024 / 48_000) for step in steps) < 1e-3
    # Where the first part's sound begins before its picture, the output's does.
    lead = Clip(part).info.timing.origin - before[0][0]
    first = Clip(tmp_path / "out.mp4").info.timing.origin - after[0][0]
    assert abs(float(first - lead)) < 1e-3
