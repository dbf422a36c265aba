"""What the rows of a data set need of a cache: the key of each entry, and how it is made.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.data.media import Shape
from imvideoedit.data.pair_record import SIDES, PairRecord
from imvideoedit.data.sizes import Bucket
from imvideoedit.edit_batch import Input
from imvideoedit.methods.reader import Reader
from imvideoedit.training.cache_keys import context_key, medium_key, pixels_key, text_key
from imvideoedit.training.examples import Reader as RowReader
from imvideoedit.training.examples import Transform, changed, encoder_of, inputs_of
from imvideoedit.training.latent_pairs import ItemKeys

SHARED = "raw"  # in place of an encoder's name where there is none


class Source(NamedTuple):
    """Pixels of an entry: how to read them, uint8 ``[F, H, W, 3]`` or a mask ``[F, H, W]``, and F, H, W."""

    read: Callable[[], np.ndarray]
    shape: Shape


@dataclass
class Plan:
    """What some items need: their keys, and how each entry is made."""

    items: list[ItemKeys] = field(default_factory=list)
    latents: dict[str, Source] = field(default_factory=dict)
    pixels: dict[str, Source] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    contexts: dict[str, Callable[[], Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Planner:
    """Plans the entries of rows.

    Args:
        autoencoder, text_encoder: names of the encoders, see :func:`encoder_name`.
        records, buckets: of the rows.
        inputs: the method's.
        transform, variants: how to change examples, and in how many ways; 0 for not at all.
        seed: of the transform.
        ahead: whether it looks ahead.
        own: the method's reader, of one without a transform; makes a context of each text and what it sees.
    """

    autoencoder: str
    text_encoder: str
    records: Sequence[PairRecord]
    buckets: Sequence[Bucket]
    inputs: Sequence[Input] = ()
    transform: Transform | None = None
    variants: int = 0
    seed: int = 0
    ahead: bool = False
    own: Reader | None = None

    def __post_init__(self) -> None:
        if self.own is not None and self.transform is not None:
            raise NotImplementedError("a method that changes examples has no reader of its own here")

    def reader(self, index: int) -> RowReader:
        """Reads the example of a row."""
        record = self.records[index]
        return RowReader(record, self.buckets[index], inputs_of(record, self.inputs), self.ahead)

    def plan(self, index: int) -> Plan:
        """What a row needs: one item, or one for each variant."""
        plan, reader = Plan(), self.reader(index)
        if self.transform is None:
            media: dict[str, str] = {}
            names = dict.fromkeys(SIDES, "vae") | {name: each.encoder for name, each in reader.media().items()}
            for name, encoder in names.items():
                key = medium_key(self._name(encoder), reader.medium(name), reader.place(name))
                media[name] = key
                source = Source(partial(self._pixels, index, name), reader.shape(name))
                (plan.latents if encoder == "vae" else plan.pixels)[key] = source
            self._add(plan, reader, media, names, reader.texts())
            return plan
        for variant in range(self.variants):
            values = self._changed(index, variant)
            texts = {name: value for name, value in values.items() if isinstance(value, str)}
            declared = {each.name: each for each in self.inputs}
            names = {n: encoder_of(n, value, declared) for n, value in values.items() if n not in texts}
            media = {name: pixels_key(self._name(encoder), values[name]) for name, encoder in names.items()}
            for name, encoder in names.items():
                source = Source(partial(self._changed_pixels, index, variant, name), values[name].shape[:3])
                (plan.latents if encoder == "vae" else plan.pixels)[media[name]] = source
            self._add(plan, reader, media, names, texts)
        return plan

    def texts(self, index: int) -> dict[str, str]:
        """The texts of a row as it is, by key."""
        return {text_key(self.text_encoder, text): text for text in self.reader(index).texts().values()}

    def _add(
        self, plan: Plan, reader: RowReader, media: dict[str, str], encoders: dict[str, str], texts: dict[str, str]
    ) -> None:
        keys = {name: text_key(self.text_encoder, text) for name, text in texts.items()}
        plan.texts |= {keys[name]: text for name, text in texts.items()}
        if self.own is not None:
            del plan.texts[keys["prompt"]]
            seen = {name: key for name, key in media.items() if name != "target"}
            keys["prompt"] = context_key(self.own.name, texts["prompt"], seen)
            plan.contexts[keys["prompt"]] = partial(self._context, self.own, reader, texts["prompt"])
        latents, pixels = (
            {name: key for name, key in media.items() if encoders[name] == encoder} for encoder in ("vae", "raw")
        )
        plan.items.append(ItemKeys(reader.record.id, latents, pixels, keys))

    def _context(self, own: Reader, reader: RowReader, text: str) -> Tensor:
        """What the method's reader makes of a row."""
        source_FHWC = reader.video("source")
        frames = [source_FHWC[place] for place in own.places(len(source_FHWC))]
        images = {name: reader.video(name)[0] for name, each in reader.media().items() if each.kind == "image"}
        try:
            return own.read(text, frames, len(source_FHWC), images)
        except UserError as error:
            raise UserError(f"{reader.record.name}: {error}") from error

    def _name(self, encoder: str) -> str:
        return self.autoencoder if encoder == "vae" else SHARED

    def _pixels(self, index: int, name: str) -> np.ndarray:
        return self.reader(index).video(name)

    def _changed(self, index: int, variant: int) -> dict[str, Any]:
        assert self.transform is not None
        reader = self.reader(index)
        return changed(reader.example(), self.transform, self.seed, reader.record.row, variant)

    def _changed_pixels(self, index: int, variant: int, name: str) -> np.ndarray:
        return self._changed(index, variant)[name]
