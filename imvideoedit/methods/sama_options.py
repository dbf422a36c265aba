"""The options of SAMA."""

from dataclasses import dataclass
from typing import Literal

from imvideoedit.common.errors import UserError

_CHOICES = {
    "adapter": ("full", "lora"),
    "sem_target": ("velocity", "x0_projected"),
    "sem_rope": ("identity", "zero"),
    "roles": ("types", "shift"),
}


@dataclass(frozen=True)
class SamaOptions:
    """How SAMA trains, and what its sequence is.

    Attributes:
        adapter: ``full`` trains all of the transformer; ``lora`` low-rank deltas on self-attention and feed-forward.
        rank: of lora, at least 1.
        siglip: whose image tower makes the semantic tokens in training: a folder, a hub id, or ``bundled`` (nano).
        width: of SigLIP's features.
        hidden: width of the layer between them and the transformer.
        anchoring: False leaves the semantic tokens out.
        weight: of their loss, at least 0.
        sem_target: what the head predicts: the ``velocity`` of SigLIP's features, or, as the paper writes it,
            ``x0_projected``, the clean tokens in the transformer's width, with a stop-gradient on them.
        sem_rope: positions of the semantic tokens: ``identity``, which turns nothing; or ``zero``, as the released
            weights have them, where their queries and keys are zero.
        roles: what tells source from target: ``types``, the embeddings; or ``shift``, positions in time behind the
            target's, to compare with.
        pretext: whether the sources of plain videos, whose target is their source, are changed by pretext tasks.
        prefix: before each text, such as the released weights' ``[Video edit]``; the negative prompt is then it alone.
            Texts that training leaves out are empty.

    Raises:
        UserError: an option is out of its range.
    """

    adapter: Literal["full", "lora"] = "full"
    rank: int = 128
    siglip: str = "google/siglip-so400m-patch14-384"
    width: int = 1152
    hidden: int = 1024
    anchoring: bool = True
    weight: float = 0.1
    sem_target: Literal["velocity", "x0_projected"] = "velocity"
    sem_rope: Literal["identity", "zero"] = "identity"
    roles: Literal["types", "shift"] = "types"
    pretext: bool = False
    prefix: str = ""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"method.{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")
        for name in ("rank", "width", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name} is {getattr(self, name)}; it must be at least 1")
        if self.weight < 0:
            raise UserError(f"method.weight is {self.weight}; it must be at least 0")
