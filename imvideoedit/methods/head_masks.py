"""Which heads of a transformer's self-attention look across frames: FreeProp's temporal heads, and a file of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import WanTransformer3DModel

from imvideoedit.common.bundled import heads_path
from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_json, write_json
from imvideoedit.wan.identity import parameter_hash

MAKE = "make it by python -m imvideoedit.methods.freeprop_heads"


@dataclass(frozen=True)
class HeadMasks:
    """For each block and head, 1 for a temporal one and 0 for a spatial one.

    Attributes:
        backbone_hash: of the transformer whose heads these are; None where an adapter's header answers for it.
    """

    temporal: tuple[tuple[int, ...], ...]
    backbone_hash: str | None = None

    @classmethod
    def of(cls, temporal: Any, backbone_hash: str | None = None, where: str = "method.heads") -> "HeadMasks":
        """From nested sequences of 0 and 1.

        Raises:
            UserError: they are something else.
        """
        try:
            rows = tuple(tuple(row) for row in temporal)
        except TypeError:
            rows = ()
        if not rows or any(type(value) is not int or value not in (0, 1) for row in rows for value in row):
            raise UserError(f"{where} must be a list of 0 and 1 for the heads of each block; {MAKE}")
        return cls(rows, backbone_hash)

    def check(self, transformer: WanTransformer3DModel) -> None:
        """See that these are the heads of this transformer.

        Raises:
            UserError: they are not.
        """
        own: Any = transformer.config
        if [len(row) for row in self.temporal] != [own.num_attention_heads] * own.num_layers:
            raise UserError(
                f"method.heads tells of {len(self.temporal)} blocks of {len(self.temporal[0])} heads; this backbone "
                f"has {own.num_layers} of {own.num_attention_heads}; {MAKE}"
            )
        if self.backbone_hash is not None and self.backbone_hash != parameter_hash(transformer):
            raise UserError(f"method.heads tells of the heads of another backbone ({self.backbone_hash}); {MAKE}")


def read_head_masks(path: Path | str) -> HeadMasks:
    """Those of a file; ``bundled`` names that of the nano backbone.

    Raises:
        UserError: missing, damaged, or no such file.
    """
    path = heads_path(path)
    content = read_json(path, dict, MAKE)
    found = content.get("backbone_hash")
    if not isinstance(found, str):
        raise UserError(f"{path} does not say of which backbone its heads are; {MAKE}")
    return HeadMasks.of(content.get("temporal"), found, f"temporal in {path}")


def write_head_masks(path: Path | str, temporal: Sequence[Sequence[int]], backbone_hash: str, **how: Any) -> None:
    """A file of head masks.

    Args:
        how: they were found, for the record.
    """
    write_json(Path(path), {"backbone_hash": backbone_hash, "temporal": [list(row) for row in temporal], **how})
