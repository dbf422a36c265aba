"""Embeddings of the training pairs' texts, as entries of a cache give them.

Shapes: B batch, N texts, T text tokens, D text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imvideoedit.data.shards import Entry, ProcessInfo, ShardStore
from imvideoedit.training.encoding import encoder_name, fill_texts, text_key
from imvideoedit.wan.backbone import Backbone

WORDS, INPUT = "words", "input."  # names in an entry: of the pair's text, and the begin of an input's


@dataclass(frozen=True)
class TextTable:
    """Embeddings of texts, one behind the other without padding.

    Attributes:
        flat_TD: all tokens.
        starts_N, lengths_N: of the texts in it.
        tokens: padded length of a text.
    """

    flat_TD: Tensor
    starts_N: Tensor
    lengths_N: Tensor
    tokens: int

    @classmethod
    def of(cls, texts_TD: Sequence[Tensor], tokens: int) -> "TextTable":
        """The table of these texts."""
        lengths_N = torch.tensor([len(text_TD) for text_TD in texts_TD])
        return cls(torch.cat(list(texts_TD)), lengths_N.cumsum(0) - lengths_N, lengths_N, tokens)

    def padded(self, places_B: Tensor) -> Tensor:
        """Some texts, padded by zeros as the encoder does: ``[B, T, D]`` float32."""
        token_T = torch.arange(self.tokens, device=places_B.device)
        there_BT = token_T < self.lengths_N[places_B, None]
        place_BT = (self.starts_N[places_B, None] + token_T).clamp(max=len(self.flat_TD) - 1)
        return torch.where(there_BT[..., None], self.flat_TD[place_BT].float(), 0.0)

    def to(self, device: torch.device) -> "TextTable":
        """A copy on a device."""
        return TextTable(self.flat_TD.to(device), self.starts_N.to(device), self.lengths_N.to(device), self.tokens)


Table = tuple[TextTable, Tensor, dict[str, Tensor]]
"""Embeddings, the places of the pairs' own, and those of inputs by name."""


def embeddings(
    entries: Sequence[Entry], told: Sequence[str], store: ShardStore, backbone: Backbone, process: ProcessInfo
) -> Table:
    """By the backbone's text encoder, each text once.

    Args:
        told: names of inputs that are texts.
    """
    texts = {name: [_text(entry[name]) for entry in entries] for name in (WORDS, *(INPUT + name for name in told))}
    text_encoder = encoder_name(backbone, "text_encoder")
    prompts = {text_key(text_encoder, text): text for own in texts.values() for text in own}
    fill_texts(store, prompts, backbone, backbone.device, process)
    found = [store.read(key) for key in prompts]
    position = {text: place for place, text in enumerate(prompts.values())}
    table = TextTable.of([entry["text"] for entry in found], int(found[0]["tokens"]))
    places = {name: torch.tensor([position[text] for text in own]) for name, own in texts.items()}
    return table, places.pop(WORDS), {name.removeprefix(INPUT): own for name, own in places.items()}


def contexts(entries: Sequence[Entry]) -> Table:
    """By the method's own reader, each pair's with what it sees."""
    table = TextTable.of([entry["context"] for entry in entries], int(entries[0]["tokens"]))
    return table, torch.arange(len(entries)), {}


def _text(stored: Tensor) -> str:
    return stored.numpy().tobytes().decode()
