"""The data module of encoded image pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imvideoedit.data.pairs import PairDataModule
from imvideoedit.data.records import PairRecord
from imvideoedit.data.shards import Share
from imvideoedit.data.sizes import make_buckets, nearest_bucket
from imvideoedit.training.encoding import LatentPairs, encode_pairs


class LatentDataModule(PairDataModule):
    """:class:`PairDataModule` on latents: what is not encoded yet is encoded when training begins, by all processes.

    Batches are an ``EditBatch`` each. All batches of an optimizer step have one size.

    Args:
        cache: folder of what was encoded.
        options: of :class:`PairDataModule`.
    """

    def __init__(self, cache: Path | str, **options: Any) -> None:
        super().__init__(**options)
        self._cache = Path(cache)

    def _pairs(self, records: Sequence[PairRecord], rows: list[int]) -> LatentPairs:
        trainer: Any = self.trainer
        sizes = make_buckets(self._max_area, self._pixel_multiple)
        buckets = [nearest_bucket(records[row].size(), sizes) for row in rows]
        strategy = trainer.strategy
        share = Share(trainer.global_rank, trainer.world_size, strategy.barrier)
        backbone = trainer.lightning_module.backbone
        return encode_pairs(self._cache, backbone, records, rows, buckets, strategy.root_device, share)
