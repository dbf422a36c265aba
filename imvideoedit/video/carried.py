"""What a file carries beside pictures and sound: into the output where that can hold it, else named in one line."""

import warnings
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer, OutputContainer
from av.stream import Stream

from imvideoedit.common.errors import Note
from imvideoedit.video.containers import video_stream
from imvideoedit.video.info import VideoInfo

# Facts of the old container, which the new one states itself.
_TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
# Names that ffmpeg and cameras give every track.
_USUAL_NAMES = {"VideoHandler", "SoundHandler", "SubtitleHandler", "Core Media Video", "Core Media Audio"}

# QuickTime's own languages, which ffmpeg finds by their bibliographic codes alone.
_OF_MOV = {"deu": "ger", "fra": "fre", "nld": "dut", "zho": "chi", "ces": "cze", "ell": "gre", "fas": "per"}
_OF_MOV |= {"isl": "ice", "ron": "rum", "sqi": "alb", "hye": "arm", "kat": "geo", "mkd": "mac", "slk": "slo"}


def carry_texts(source: InputContainer, output: OutputContainer) -> None:
    """Copy title, artist, date and other texts, before the output's own are set."""
    output.metadata.update({key: text for key, text in source.metadata.items() if key.lower() not in _TECHNICAL})


def carry_names(source: Stream, output: Stream) -> None:
    """Copy a track's language, disposition and name, under the key that each container reads."""
    language, name = source.metadata.get("language"), source.metadata.get("title")
    handler = source.metadata.get("handler_name")
    name = name or (handler if handler not in _USUAL_NAMES else None)
    if output.container.format.name == "mov":
        language = _OF_MOV.get(language or "", language)
    if language is not None:
        output.metadata["language"] = language
    if name is not None:
        output.metadata.update({"title": name, "handler_name": name})


def carry_chapters(source: InputContainer, output: OutputContainer, zero: Fraction, end: Fraction) -> None:
    """Copy the chapters that lie in the output.

    Args:
        zero: seconds of the source's clock that are 0 in the output.
        end: seconds of the output's clock.
    """
    kept: Any = []
    for chapter in source.chapters():
        base = Fraction(chapter["time_base"] or 1)
        start, stop = chapter["start"] * base - zero, chapter["end"] * base - zero
        if stop <= 0 or start >= end:
            continue
        begun, ended = round(max(start, Fraction(0)) * 1000), round(min(stop, end) * 1000)
        kept.append({**chapter, "start": begun, "end": ended, "time_base": Fraction(1, 1000)})
    if kept:
        output.set_chapters(kept)


def name_losses(path: Path, like: VideoInfo, source: InputContainer | None, kept: set[int], replaced: set[str]) -> None:
    """Say once what of the source the output ``path`` does not have.

    Args:
        source: None for a still.
        kept: indices of its streams that are in the output.
        replaced: texts' keys that the output has for itself.
    """
    lost = []
    if like.alpha:
        lost.append("transparency (shown on white)")
    if like.interlaced:
        lost.append("interlacing (both fields are in one frame; deinterlace first, such as by ffmpeg -vf bwdif)")
    if like.hdr:
        lost.append("HDR data beside the frames")
    if like.exif:
        lost.append("EXIF (camera, date, place)")
    if source is not None:
        counts = Counter(_described(stream) for stream in source.streams if _is_lost(stream, source, kept))
        lost += [f"{number} {what}" for what, number in counts.items()]
        lost += [f"the text {key!r}" for key in sorted(replaced & source.metadata.keys())]
    if lost:
        warnings.warn(f"{path} does not keep of the source: {', '.join(lost)}", Note, stacklevel=2)


def _is_lost(stream: Any, source: InputContainer, kept: set[int]) -> bool:
    # The chapters of an mp4 are a track of their own, too.
    chapters = stream.type == "data" and stream.codec_context is None and bool(source.chapters())
    return stream.index not in kept and stream is not video_stream(source) and not chapters


def _described(stream: Any) -> str:
    name = stream.codec_context.name if stream.codec_context is not None else "of an unknown codec"
    what = {"subtitle": "subtitle track", "audio": "sound track", "video": "further video track or cover"}
    return f"{what.get(stream.type, f'{stream.type} track')} ({name})"
