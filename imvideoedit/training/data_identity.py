"""Whether a resumed run reads the rows that it began with, by their contents."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.data.media import contents
from imvideoedit.data.pair_record import PairRecord


def row_hashes(parts: Iterable[Iterable[str | bytes]]) -> Tensor:
    """One number for each row, in their order: int64 ``[rows]``.

    Args:
        parts: of each row all that makes it what it is.
    """
    hashes = []
    for row in parts:
        digest = xxhash.xxh3_64()
        for part in row:
            digest.update(part.encode() if isinstance(part, str) else part)
            digest.update(b"\0")
        hashes.append(digest.intdigest() - 2**63)
    return torch.tensor(hashes, dtype=torch.int64)


def record_parts(record: PairRecord) -> Iterable[str | bytes]:
    """What makes a row that is not encoded beforehand: its id, texts and media."""
    yield record.id
    for name, text in sorted(record.texts.items()):
        yield from (name, text)
    for name, medium in sorted(record.media.items()):
        yield name
        yield from contents(medium)


def check_rows(where: object, before: dict[str, Any], now: dict[str, Tensor]) -> None:
    """Refuse rows that are not those of the checkpoint; ``before`` and ``now`` by split.

    Raises:
        UserError: rows were added, removed or changed, or stand in another order; says how many.
    """
    if all(torch.equal(before[name], now[name]) for name in now if name in before):
        return
    old, new = (Counter(_all(splits.values())) for splits in (before, dict[str, Any](now)))
    removed, added = ((one - other).total() for one, other in ((old, new), (new, old)))
    what = f"{added} added or changed, {removed} removed or changed" if added or removed else "in another order"
    raise UserError(
        f"the rows of {where} are not those that the run was begun with ({old.total()} then, {new.total()} now: "
        f"{what}), so its place in the epoch would repeat some and skip others; restore them, or begin another "
        "run with name=ANOTHER, from this one's weights by task.start=ADAPTER"
    )


def _all(splits: Iterable[Sequence[Any]]) -> list[int]:
    return [int(value) for split in splits for value in split]
