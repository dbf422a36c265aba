"""The data module of pairs: split, encoded once or as they change, batched by shape."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule

from imvideoedit.common.errors import UserError
from imvideoedit.common.owner import owned
from imvideoedit.common.terminal import say
from imvideoedit.data.buckets import BucketBatchSampler, ResumableLoader
from imvideoedit.data.pair_record import IMAGE, KINDS, SIDES
from imvideoedit.data.records import Rows, open_records
from imvideoedit.data.shards import ProcessInfo
from imvideoedit.data.sizes import MAX_ASPECT, check_lengths, make_buckets
from imvideoedit.edit_batch import Input
from imvideoedit.methods.base import Method
from imvideoedit.training.data_identity import check_rows, record_parts, row_hashes
from imvideoedit.training.encoding import Encoder, encode_dataset, fill_plain_texts, make_planner
from imvideoedit.training.examples import Transform, bucket_of
from imvideoedit.training.latent_pairs import LatentPairs
from imvideoedit.training.live_encoding import Examples, LiveEncoder, PixelPairs
from imvideoedit.wan.bases import fitting_multiple

SLACK = 1e-6  # of shares that add up to 1


class LatentDataModule(LightningDataModule):
    """Training and validation batches (:class:`EditBatch`) of a data set of pairs, images or clips.

    Pairs that the cache lacks are encoded when training begins, by all processes: source, target, text, and the inputs
    that the method declares. What a method changes at every epoch (``Method.transform``) is encoded in as many variants
    beforehand, or as it comes. All batches of an optimizer step have one shape. Shards by itself: give the Trainer
    ``use_distributed_sampler=False``.

    Args:
        path: a data set for ``open_records``.
        cache: folder of latents, pixels and text embeddings.
        max_area: the most pixels (height x width) of a frame.
        pixel_multiple: of both sides, a multiple of the backbone's own; that if None.
        batch_size: pairs in a batch of each process.
        seed: of the order, the validation split and the method's transform.
        num_workers: processes that read the cache.
        val_share: fraction of the rows, chosen by a hash of their ids, for validation; at least one row unless 0.
        epochs: passes over the rows in one epoch of the trainer, whose own count is not exact when a run is resumed.
        format, columns, split: of the data set, see ``open_records``.
        frames: lengths 4k + 1 that rows are cut to: 1 for images, more for clips, which take the longest they fill.
        variants: ways in which the method's transform changes each pair, encoded beforehand and taken in turns by the
            epoch; 0 for a new one at every epoch, encoded as it comes. Validation pairs have one.
        shares: of the steps by the kind of rows: ``image``, ``video`` (pairs of clips) and ``plain`` (clips that are
            source and target at once). They add up to 1, and rows of a kind are left out or repeated to have them; None
            for every row once in a pass.
        image_batch: images in a batch, in place of ``batch_size``.
        max_aspect: the longer by the shorter side of a bucket, at most.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self,
        path: Path | str,
        cache: Path | str,
        max_area: int,
        pixel_multiple: int | None,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        val_share: float = 0.0,
        epochs: int = 1,
        format: str = "auto",
        columns: Mapping[str, str] | None = None,
        frames: Sequence[int] | int = (1,),
        variants: int = 0,
        split: str | None = None,
        shares: Mapping[str, float] | None = None,
        image_batch: int | None = None,
        max_aspect: float = MAX_ASPECT,
    ) -> None:
        super().__init__()
        if not 0 <= val_share < 1:
            raise UserError(f"data.val_share is {val_share}; it must be at least 0 and less than 1")
        images = batch_size if image_batch is None else image_batch
        for name, value in {"batch_size": batch_size, "epochs": epochs, "image_batch": images}.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        if variants < 0:
            raise UserError(f"data.variants is {variants}; give 0 to encode as it comes, or how many to encode before")
        self.frames = (frames,) if isinstance(frames, int) else tuple(frames)
        check_lengths(self.frames)
        self.format, self.columns, self.split, self.variants = format, columns, split, variants
        self.path, self.cache, self.seed, self.num_workers = path, cache, seed, num_workers
        self.sizes = partial(make_buckets, max_area, max_aspect=max_aspect)
        self.pixel_multiple = pixel_multiple
        self.shares = None if shares is None else dict(shares)
        self._batch_sizes = {} if image_batch is None else {IMAGE: image_batch}
        self._kinds: list[str] = []  # of the training rows, where kinds have shares or batch sizes of their own
        self.batch_size, self.val_share, self.epochs = batch_size, val_share, epochs
        self.train_pairs: LatentPairs | PixelPairs | None = None
        self.val_pairs: LatentPairs | PixelPairs | None = None
        self._live: LiveEncoder | None = None
        self._rows: dict[str, torch.Tensor] = {}  # of the training and the validation rows, see row_hashes

    def setup(self, stage: str | None = None) -> None:
        """Open, split and encode the data set; further calls change nothing.

        Raises:
            UserError: the data set cannot be opened, a row of it is bad, or no row is left to train on.
        """
        if self.train_pairs is not None:
            return
        records = open_records(self.path, self.format, self.columns, self.split)
        if getattr(self._trained(), "reads_instructions", False):
            records = records.each(attrgetter("instructed"))
        held_out = self._validation_rows(records)
        train = [row for row in range(len(records)) if row not in held_out]
        if not train:
            raise UserError(f"{self.path} leaves no row to train on; add pairs or lower data.val_share")
        if self.shares is not None or self._batch_sizes:
            self._kinds = [record.kind for record in records.pick(train)]
        self._check_shares()
        inputs, transform = self._method()
        self._tell_unused(records, inputs)
        with owned(self.cache, "a run that encodes pairs", wait=True):
            trainer: Any = self.trainer
            trainer.strategy.barrier()  # no process writes before the first one owns the folder
            self.train_pairs = self._encode(records.pick(train), inputs, transform, self.variants)
            if held_out:
                self.val_pairs = self._encode(records.pick(sorted(held_out)), inputs, transform, min(self.variants, 1))
            trainer.strategy.barrier()

    def state_dict(self) -> dict[str, Any]:
        """What identifies the rows, for checkpoints."""
        return self._rows

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the rows with those of a checkpoint.

        Raises:
            UserError: they are others.
        """
        check_rows(self.path, state_dict, self._rows)

    def train_dataloader(self) -> ResumableLoader:
        """Batches in an order that depends on the seed and the epoch."""
        trainer: Any = self.trainer
        group = trainer.accumulate_grad_batches * trainer.world_size
        return self._loader(self.train_pairs, shuffle=True, group=group, epochs=self.epochs)

    def val_dataloader(self) -> ResumableLoader | list:
        """Batches in a fixed order; none if ``val_share`` is 0."""
        return self._loader(self.val_pairs, shuffle=False) if self.val_pairs else []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Encode a batch that the method's transform has just changed."""
        if not isinstance(batch, Examples):
            return batch
        assert self._live is not None
        return self._live.batch(batch).to(self._device())

    def _device(self) -> torch.device:
        trainer: Any = self.trainer
        return trainer.strategy.root_device

    def _method(self) -> tuple[tuple[Input, ...], Transform | None]:
        """What the method takes besides source and text, and how it changes examples, if it does."""
        method = self._trained()
        if method is not None and any(each.encoder == "clip" for each in method.derived):
            raise UserError(
                f"{method.name} needs tokens of images in this backbone, which training on pairs does not make; give "
                "a backbone without image_dim"
            )
        if method is not None and method.changes_examples:
            return method.data_inputs, method.transform
        if self.variants:
            raise UserError(f"data.variants is {self.variants}, but this method changes no examples; leave it at 0")
        return () if method is None else method.data_inputs, None

    def _trained(self) -> Method | None:
        trainer: Any = self.trainer
        return getattr(trainer.lightning_module, "method", None)

    def _check_shares(self) -> None:
        """See that each kind of rows has a share, and each share rows.

        Raises:
            UserError: one has not, or the shares do not add up to 1.
        """
        if self.shares is None:
            return
        found, named = set(self._kinds), set(self.shares)
        if named - set(KINDS) or min(self.shares.values(), default=0) < 0 or abs(sum(self.shares.values()) - 1) > SLACK:
            raise UserError(f"data.shares is {self.shares}; give shares of {', '.join(KINDS)} that add up to 1")
        if lacking := {kind for kind in named - found if self.shares[kind]}:
            raise UserError(f"data.shares wants rows of kind {', '.join(sorted(lacking))}, but {self.path} has none")
        if unused := found - named:
            raise UserError(f"{self.path} has rows of kind {', '.join(sorted(unused))}; give them a share, such as 0")

    def _tell_unused(self, records: Rows, inputs: Sequence[Input]) -> None:
        """Say once which media of the data no input takes."""
        trainer: Any = self.trainer
        taken = {*SIDES, *(each.name for each in inputs)}
        unused = sorted({name for record in records for name in record.media} - taken)
        if unused and trainer.global_rank == 0:
            say(f"media of the data that the method does not take, not used: {', '.join(unused)}")

    def _validation_rows(self, records: Rows) -> set[int]:
        if self.val_share == 0:
            return set()
        # By a hash, so that rows added later hardly move others between training and validation.
        keys = [hashlib.sha256(f"{self.seed}:{record.id}".encode()).digest() for record in records]
        ranked = sorted(range(len(keys)), key=lambda row: keys[row])
        return set(ranked[: max(1, round(self.val_share * len(keys)))])

    def _encode(
        self, records: Rows, inputs: Sequence[Input], transform: Transform | None, variants: int
    ) -> LatentPairs | PixelPairs:
        trainer: Any = self.trainer
        process = ProcessInfo(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)
        backbone, device = trainer.lightning_module.backbone, self._device()
        sizes = self.sizes(fitting_multiple(backbone.name, self.pixel_multiple))
        buckets = [bucket_of(record, sizes, self.frames, inputs) for record in records]
        how: dict[str, Any] = {"inputs": inputs, "transform": transform, "variants": variants, "seed": self.seed}
        how["own"] = getattr(self._trained(), "reader", None)
        how["ahead"] = transform is not None and getattr(self._trained(), "looks_ahead", False)
        name = "validation" if "train" in self._rows else "train"
        if transform is None or variants:
            pairs = encode_dataset(self.cache, backbone, records, buckets, device, process, **how)
            self._rows[name] = row_hashes([repr(variant) for variant in row] for row in pairs.pairs)
            return pairs
        self._rows[name] = row_hashes(map(record_parts, records))
        planner = make_planner(backbone, records, buckets, **how)
        texts = fill_plain_texts(self.cache, planner, backbone, device, process)
        self._live = LiveEncoder(Encoder(backbone, device), texts, planner.text_encoder, inputs)
        return PixelPairs(planner)

    def _loader(self, pairs: Any, **order: Any) -> ResumableLoader:
        trainer: Any = self.trainer
        how = {"rank": trainer.global_rank, "world_size": trainer.world_size, **order}
        buckets = pairs.buckets
        if order["shuffle"] and self._kinds:
            buckets = [(kind, *bucket) for kind, bucket in zip(self._kinds, buckets, strict=True)]
            how |= {"shares": self.shares, "sizes": self._batch_sizes}
        sampler = BucketBatchSampler(buckets, self.batch_size, self.seed, epochs_apart=order["shuffle"], **how)
        return ResumableLoader(pairs, sampler, self.num_workers)
