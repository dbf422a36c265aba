"""What others may have written is read in one place for each format, by readers that open and run nothing else."""

import contextlib
import io
import json
import os
import re
import stat
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

from data_recipes.foreign_rows import stream
from data_recipes.rows import crossed_of, held, scores_of
from data_recipes.shards import Shards
from imvideoedit.common.errors import UserError
from imvideoedit.data.media import is_clip, read_medium
from imvideoedit.video.containers import opened
from imvideoedit.video.images import load_rgb
from imvideoedit.video.kinds import kind_of
from imvideoedit.video.pictures import FORMATS, open_picture
from imvideoedit.video.reader import Clip
from tests.clips import flat_frames, make_clip

ROOT = Path(__file__).parent.parent
PLACES = {
    r"\bjson\.loads?\(": "imvideoedit/common/json_file.py",
    r"\bImage\.open\(": "imvideoedit/video/pictures.py",
    r"\bav\.open\((?!name, \"w\"|io\.BytesIO\(\), \"w\")": "imvideoedit/video/containers.py",
}
PIXELS = defaultdict(lambda: "yuv420p", gif="rgb8")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n8 8 scale\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("call", PLACES)
def test_each_format_is_parsed_in_one_file(call):
    files = [path for folder in ("imvideoedit", "data_recipes") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if re.search(call, path.read_text())}
    assert found == {PLACES[call]}


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A ghostscript on the path that leaves a file when it is run; the file."""
    ran, program = tmp_path / "ran", tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return ran


def test_no_picture_runs_a_program(ghostscript, tmp_path, monkeypatch):
    for name in ("a.eps", "b.png"):
        (tmp_path / name).write_bytes(EPS)
        for read in (load_rgb, Clip, lambda path: read_medium(path, "row 1: source")):
            with pytest.raises(UserError):
                read(tmp_path / name)
        with contextlib.suppress(UserError):
            kind_of(tmp_path / name)
    with pytest.raises(UserError):
        load_rgb(EPS)
    with pytest.raises(UnidentifiedImageError):
        open_picture(EPS)
    assert not is_clip(EPS)
    with pytest.raises(OSError):  # as a library would open an upload
        Image.open(io.BytesIO(EPS)).load()
    assert not ghostscript.exists()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    with pytest.raises(OSError):
        Image.open(io.BytesIO(EPS)).load()
    assert ghostscript.exists(), "the planted program would have been noticed"


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "PSD"])
def test_pictures_of_the_listed_formats_are_read(tmp_path, kind):
    pixels = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a", kind)
    assert np.abs(load_rgb(tmp_path / "a").astype(int) - pixels).max() <= 8


@pytest.mark.parametrize(
    "listed", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_list_of_files_opens_none_of_them(tmp_path, listed):
    """The file named is a pipe: whoever opened it would let the writer go on."""
    pipe = tmp_path / "segment.ts"
    os.mkfifo(pipe)
    (tmp_path / "list.m3u8").write_text(listed.format(pipe.name))
    met = threading.Event()

    def write() -> None:
        with pipe.open("wb"):
            met.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for path in (tmp_path / "list.m3u8", (tmp_path / "list.mp4").absolute()):
            path.write_text(listed.format(pipe.name))
            with pytest.raises(UserError, match="of no known format|cannot read"), opened(path):
                pass
        assert not met.is_set()
    finally:
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)
    assert met.is_set()


def test_a_name_that_looks_like_a_series_is_one_file(tmp_path):
    for name, level in (("a%d.jpg", 200), ("a0.jpg", 20)):
        Image.new("L", (32, 32), level).save(tmp_path / name)
    with opened(tmp_path / "a%d.jpg") as container:
        assert next(container.decode(video=0)).to_ndarray(format="gray")[0, 0] == 200


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".mov", "mpeg4"), (".mkv", "libx264"), (".webm", "libvpx"), (".avi", "mpeg4")]
    + [(".m4v", "libx264"), (".mpg", "mpeg2video"), (".ts", "libx264"), (".wmv", "wmv2"), (".flv", "flv")]
    + [(".3gp", "libx264"), (".gif", "gif"), (".mxf", "mpeg2video"), (".y4m", "rawvideo")],
)
def test_the_usual_containers_are_read(tmp_path, suffix, codec):
    path = make_clip(tmp_path / f"a{suffix}", flat_frames([40, 200] * 3), rate=25, codec=codec, pix_fmt=PIXELS[codec])
    assert len(Clip(path)) == 6


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'"text"',
        b"[" * 9999,
        b'{"a": "\\ud83d"}',
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 2}',
    ],
)
def test_a_foreign_row_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "metadata.jsonl").write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    rows = stream(str(tmp_path))
    assert next(rows)[1]["a"] == 1
    with pytest.raises(UserError, match=r"line 3 of .*metadata.jsonl: not .*; fix or remove it"):
        next(rows)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"faithfulness": "high"}', '{"faithfulness": 3}', '{"faithfulness": []}']
)
def test_scores_that_are_none_are_named(text):
    for read in (scores_of, lambda row: crossed_of({"id": row["id"], "crossed": f'{{"judge": {row["scores"] or 0}}}'})):
        with pytest.raises(UserError, match="of row 7"):
            read({"id": 7, "scores": text})
    with pytest.raises(UserError, match="the column origin of row 7"):
        held({"id": 7, "origin": None}, "origin")


@pytest.mark.parametrize(
    "manifest", ["[]", "{", "null", "{}", '{"rows": 1, "accepted": 1, "rejected": {}, "shards": [3]}', '{"shards": 3}']
)
def test_a_manifest_of_another_form_is_named(tmp_path, manifest):
    shards = Shards(tmp_path, pa.schema([("id", pa.string()), ("accepted", pa.bool_()), ("reason", pa.string())]))
    assert shards.manifest() == {} and shards.count() == 0
    shards.write(0, [{"id": "a", "accepted": True, "reason": ""}], "key")
    shards.finish(["key"], {})
    assert shards.count() == 1
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match="manifest.json.*; remove it and run the stage again"):
        shards.count()


def test_parquet_and_jsonl_rows_come_as_they_are_stored(tmp_path):
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "p/train.parquet")
    assert [row["a"] for _, row in stream(str(tmp_path / "p"))] == [1, 2]
    (tmp_path / "rows.jsonl").write_text("\ufeff" + "\n".join(json.dumps({"a": n}) for n in (1, 2)))
    assert [row["a"] for _, row in stream(str(tmp_path))] == [1, 2]
