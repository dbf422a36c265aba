"""The options of MiVE."""

from dataclasses import dataclass
from typing import Literal

from imvideoedit.common.errors import UserError

_CHOICES = {
    "adapter": ("full", "lora"),
    "layers": ("first", "last", "both"),
    "conditioning": ("self", "cross"),
}


@dataclass(frozen=True)
class MiveOptions:
    """What MiVE reads and how it trains.

    Attributes:
        adapter: ``full`` trains all of the transformer; ``lora`` low-rank deltas on attention and feed-forward.
        rank: of lora, at least 1.
        vlm: the vision-language model, a Qwen3-VL: a folder or a hub id.
        width: of its features.
        token: pixels of the side of what one of its tokens sees: its patch times its merge.
        layers: whose output is read: the ``first``, the ``last``, or ``both``.
        post_deepstack: the first layer's output with the vision encoder's features that the model adds behind it.
        frames: of the source that it sees, evenly spaced, at least 1.
        pixels: of a frame that it sees, at most.
        text_tokens: of an instruction, at most.
        conditioning: its tokens stand in the one self-attention (``self``), or come by cross-attention, to compare.

    Raises:
        UserError: an option is out of its range.
    """

    adapter: Literal["full", "lora"] = "full"
    rank: int = 128
    vlm: str = "Qwen/Qwen3-VL-8B-Instruct"
    width: int = 4096
    token: int = 32
    layers: Literal["first", "last", "both"] = "both"
    post_deepstack: bool = False
    frames: int = 8
    pixels: int = 230_400
    text_tokens: int = 256
    conditioning: Literal["self", "cross"] = "self"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"method.{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")
        for name in ("rank", "width", "token", "frames", "text_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name} is {getattr(self, name)}; it must be at least 1")
        if self.pixels < self.token**2:
            raise UserError(f"method.pixels is {self.pixels}; one token sees {self.token**2}, so give at least that")

    @property
    def read(self) -> tuple[int, ...]:
        """Indices of what is read in the model's list of hidden states, whose first are the embeddings."""
        return {"first": (1,), "last": (-1,), "both": (1, -1)}[self.layers]
