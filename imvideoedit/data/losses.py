"""What training would not see of good rows: cropped, scaled, cut off or ignored. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from imvideoedit.data.media import Shape
from imvideoedit.data.pair_record import PairRecord
from imvideoedit.data.sizes import Size
from imvideoedit.data.splits import TRAIN, named_split

CROPPED = 0.25  # share of a picture outside its bucket, above which it is told
ENLARGED = 1.5  # factor above which a picture is blown up
REDUCED = 1 / 4  # factor below which fine things are lost
TOKENS = 512  # that Wan's text encoder reads, the end's included


@dataclass
class Losses:
    """Rows that lose something, by kind: how many, and what the first one loses."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    _read: dict[str, tuple[str, str]] = field(default_factory=dict)  # by what is read of a text: the row and the text

    def add(self, record: PairRecord, shape: Shape, length: int, size: Size) -> None:
        """Look at a good row of (frames, height, width), which goes to a bucket of ``length`` and ``size``."""
        for kind, what in (*self._sizes(shape, length, size), *self._texts(record)):
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.first.setdefault(kind, f"{record.name}: {what}")

    def lines(self) -> list[str]:
        """One line for each kind."""
        return [f"{count} {kind}, first {self.first[kind]}" for kind, count in self.counts.items()]

    def _sizes(self, shape: Shape, length: int, size: Size) -> Iterator[tuple[str, str]]:
        frames, height, width = shape
        scale = max(size[0] / height, size[1] / width)
        cropped = 1 - size[0] * size[1] / (scale * height * scale * width)
        to = f"{width}x{height} to {size[1]}x{size[0]}"
        if cropped > CROPPED:
            yield "cropped by more than a quarter", f"{cropped:.0%} of {width}x{height} is outside {size[1]}x{size[0]}"
        if scale > ENLARGED:
            yield "blown up", f"{scale:.1f} times, {to}"
        if scale < REDUCED:
            yield "much reduced", f"to {scale:.2f}, {to}"
        if length < frames:
            yield "clips longer than their bucket", f"{frames - length} of {frames} frames are not used"

    def _texts(self, record: PairRecord) -> Iterator[tuple[str, str]]:
        split = record.texts.get("split", "")
        if split and named_split(split) != TRAIN:
            yield "rows of another split, trained on all the same", f"its column split says {split}"
        words = record.prompt.split()
        # A word has at least one token: certain without the tokenizer; texts a little shorter may be cut, too.
        if len(words) < TOKENS:
            return
        yield "texts cut off", f"{len(words)} words, of which the model reads at most {TOKENS - 1} tokens"
        read = " ".join(words[: TOKENS - 1])
        row, text = self._read.setdefault(read, (record.name, record.prompt))
        if text != record.prompt:
            yield "different texts that are the same as far as they are read", f"as {row}"
