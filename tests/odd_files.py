"""Files as phones, cameras and programs make them beyond what ``clips`` makes: photos, profiles, joined streams."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from PIL import Image, ImageCms


def display_p3() -> bytes:
    """An ICC profile: sRGB's, with the primaries of Display P3."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    entries = (struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i]) for i in range(count))
    places = {tag: place for tag, place, _ in entries}
    primaries = {
        b"rXYZ": (0.515102, 0.241182, -0.00105),
        b"gXYZ": (0.291965, 0.692236, 0.041882),
        b"bXYZ": (0.157153, 0.066582, 0.784378),
    }
    for tag, values in primaries.items():
        place = places[tag] + 8
        profile[place : place + 12] = struct.pack(">iii", *(round(value * 65536) for value in values))
    return bytes(profile)


def make_animation(path: Path, frames: list[np.ndarray], milliseconds: int = 100) -> Path:
    """An animated PNG, GIF, WebP or AVIF of uint8 ``[H, W, 3 or 4]`` frames."""
    first, *others = map(Image.fromarray, frames)
    options = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(path.suffix, {})
    first.save(path, save_all=True, append_images=others, duration=milliseconds, **options)
    return path


def make_transparent_clip(path: Path, frame_HWC: np.ndarray, count: int = 3) -> Path:
    """A clip of the same uint8 ``[H, W, 4]`` frame: ProRes 4444 in .mov, VP9 or VP8 with alpha in .webm."""
    codec, layout, options = {
        ".mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
        ".webm": ("libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "0"}),
    }[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frame_HWC.shape[:2], layout
        for _ in range(count):
            container.mux(stream.encode(VideoFrame.from_ndarray(frame_HWC, format="rgba")))
        container.mux(stream.encode(None))
    return path


def make_heic(path: Path, tiles: list[np.ndarray], columns: int = 1) -> Path:
    """A HEIC photo of one uint8 ``[H, W, 3]`` picture, or of tiles in a grid, as phones make them."""
    coded = [_hevc(tile) for tile in tiles]
    height, width = tiles[0].shape[:2]
    rows = len(tiles) // columns
    grid = len(tiles) > 1
    items = [(number, b"hvc1") for number in range(1, len(tiles) + 1)]
    descriptor = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, columns * width, rows * height)
    primary = len(tiles) + 1 if grid else 1
    infos = [_full(b"infe", struct.pack(">HH4s", n, 0, kind) + b"\0", 2) for n, kind in items]
    if grid:
        infos.append(_full(b"infe", struct.pack(">HH4s", primary, 0, b"grid") + b"\0", 2))
    properties = _box(b"hvcC", coded[0][0]) + _full(b"ispe", struct.pack(">II", width, height))
    properties += _full(b"ispe", struct.pack(">II", columns * width, rows * height))
    uses = [struct.pack(">HBBB", n, 2, 0x81, 2) for n, _ in items]
    if grid:
        uses.append(struct.pack(">HBB", primary, 1, 3))
    boxes = _full(b"hdlr", struct.pack(">I4s12xB", 0, b"pict", 0)) + _full(b"pitm", struct.pack(">H", primary))
    boxes += _full(b"iinf", struct.pack(">H", len(infos)) + b"".join(infos))
    uses_box = _full(b"ipma", struct.pack(">I", len(uses)) + b"".join(uses))
    boxes += _box(b"iprp", _box(b"ipco", properties) + uses_box)
    if grid:
        parts = struct.pack(">HH", primary, len(items)) + b"".join(struct.pack(">H", n) for n, _ in items)
        boxes += _full(b"iref", _box(b"dimg", parts)) + _box(b"idat", descriptor)
    kind = _box(b"ftyp", b"heic" + struct.pack(">I", 0) + b"mif1heic")

    def meta(begin: int) -> bytes:
        places = b""
        for number, (_, data) in enumerate(coded, 1):
            places += struct.pack(">HHHHII", number, 0, 0, 1, begin, len(data))
            begin += len(data)
        if grid:  # construction method 1: in idat
            places += struct.pack(">HHHHII", primary, 1, 0, 1, 0, len(descriptor))
        count = len(coded) + grid
        return _full(b"meta", boxes + _full(b"iloc", struct.pack(">HH", 0x4400, count) + places, 1))

    begin = len(kind) + len(meta(0)) + 8
    path.write_bytes(kind + meta(begin) + _box(b"mdat", b"".join(data for _, data in coded)))
    return path


def _hevc(picture_HWC: np.ndarray) -> tuple[bytes, bytes]:
    """The configuration and the only sample of a picture in HEVC, as mp4 holds them."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"x265-params": "log-level=error:keyint=1:asm=0", "crf": "4"}
        stream = container.add_stream("libx265", rate=1, options=options)
        stream.height, stream.width, stream.pix_fmt = *picture_HWC.shape[:2], "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        container.mux(stream.encode(VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        sample = next(bytes(packet) for packet in container.demux(stream) if packet.size)
        return bytes(stream.codec_context.extradata or b""), sample


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, kind) + data


def _full(kind: bytes, data: bytes, version: int = 0) -> bytes:
    return _box(kind, struct.pack(">B3x", version) + data)


def make_rich_clip(path: Path, frames: np.ndarray, rate: int = 10) -> Path:
    """A Matroska clip with a title, a chapter a second, named tracks of sound and picture, and a subtitle a second."""
    seconds = len(frames) // rate
    words = path.with_suffix(".srt")
    words.write_text("".join(f"{n + 1}\n00:00:0{n},200 --> 00:00:0{n},900\nWord {n}\n\n" for n in range(seconds)))
    with av.open(str(path), "w") as container, av.open(str(words)) as texts:
        container.metadata["title"] = "A title"
        base = Fraction(1, 1000)
        chapters = [(n, n * 1000, (n + 1) * 1000, {"title": f"Chapter {n}"}) for n in range(seconds)]
        container.set_chapters(
            [{"id": n, "start": s, "end": e, "time_base": base, "metadata": m} for n, s, e, m in chapters]
        )
        stream = container.add_stream("libx264", rate=rate, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.metadata["title"] = "Left camera"
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        sound.metadata.update({"title": "Commentary", "language": "deu"})
        read = container.add_stream_from_template(texts.streams.subtitles[0])
        read.metadata["language"] = "fra"
        for frame_HWC in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))
        tone = AudioFrame.from_ndarray(np.zeros((1, seconds * 48_000), np.int16), format="s16", layout="mono")
        tone.sample_rate, tone.pts = 48_000, 0
        container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
        for packet in texts.demux():
            if packet.size:
                packet.stream = read
                container.mux(packet)
    return path
