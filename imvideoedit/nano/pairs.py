"""The data module of the nano world's training pairs."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.callbacks import Timer
from torch.utils.data import DataLoader

from imvideoedit.common.errors import UserError
from imvideoedit.common.owner import owned
from imvideoedit.data.shards import ProcessInfo
from imvideoedit.methods.base import Method
from imvideoedit.nano.batches import ENDLESS, Clips, MixedBatches, PairBatches, StepSampler
from imvideoedit.nano.encoded import EncodedPairs, encoded_pairs
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.mix import PairMix
from imvideoedit.nano.pair_set import PairSet

SLACK = 1e-6  # of shares that add up to 1
LARGEST_VALIDATION = 64  # pairs in a batch
GPU_SHARE = 0.4  # of a GPU's free memory


class NanoPairs(LightningDataModule):
    """Training pairs of the nano world's training compositions, and held-out ones to validate on.

    Each comes with the method's inputs, exact (see :meth:`imvideoedit.world.edits.Edit.inputs`), and is changed by the
    method's ``transform`` before it is encoded, a held-out pair always alike. Where a transform changes targets, pairs
    have no labels.

    Args:
        pairs: number of training pairs, each a rendered edit.
        batch_size: pairs in a batch of each process.
        seed: of pairs and order.
        resolution: height and width in pixels.
        validation_pairs: number of test-composition pairs for the validation loss at fixed noise levels; at least 1.
        mix: of edits and texts in the training pairs.
        frames: of a training pair, 4k + 1; above 1 the pairs are videos, both rendered exactly, and so are held-out
            ones of a method with inputs, for which a still may say too much.
        clips: of more pairs, see :class:`Clips`, in shares of the steps, so that training still sees single images
            alone; the pairs above have the rest of the steps, and are not made where nothing is left. Filmed ones have
            no labels, and held-out pairs are then exact videos of the first clips' length.
        variants: times that each pair is transformed and encoded, at least 1; passes over the pairs take them in turn.
        cache: folder of encoded pairs for later runs; None keeps them in memory only.

    Raises:
        UserError: a count is below 1, the resolution does not suit the backbone, the nano world lacks an input that the
            method needs, or there are variants for a method without a transform.
    """

    def __init__(
        self,
        pairs: int = 20000,
        batch_size: int = 16,
        seed: int = 0,
        resolution: int = 64,
        validation_pairs: int = 64,
        mix: PairMix | None = None,
        frames: int = 1,
        cache: Path | str | None = None,
        variants: int = 1,
        clips: Sequence[Clips] = (),
    ) -> None:
        super().__init__()
        counts = {"pairs": pairs, "batch_size": batch_size, "validation_pairs": validation_pairs, "variants": variants}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        if frames < 1 or frames % 4 != 1:
            raise UserError(f"data.frames is {frames}; the nano autoencoder takes 4k + 1")
        self.pairs, self.batch_size, self.seed, self.frames = pairs, batch_size, seed, frames
        shares = [each.share for each in clips]
        if sum(shares) > 1 + SLACK:
            raise UserError(f"the shares of data.clips are {', '.join(map(str, shares))}; they add up to at most 1")
        self.clips, self.rest = tuple(clips), max(0.0, 1 - sum(shares))
        self.resolution, self.validation_pairs = resolution, validation_pairs
        self.mix, self.cache, self.variants = mix or PairMix(), cache, variants
        self._encoded: list[tuple[EncodedPairs, int, float]] = []  # with batch size and share

    def setup(self, stage: str) -> None:
        """Render and encode the pairs with the training task's backbone; further calls change nothing."""
        if self._encoded:
            return
        trainer: Any = self.trainer
        backbone = trainer.lightning_module.backbone
        if self.resolution % backbone.pixel_multiple:
            raise UserError(
                f"data.resolution is {self.resolution}; the backbone {backbone.name} takes multiples of "
                f"{backbone.pixel_multiple}"
            )
        method = trainer.lightning_module.method
        asked = Preparation.of(method)
        if self.variants > 1 and asked.transform is None:
            raise UserError(
                f"data.variants is {self.variants}, but the method {method.name} changes no example; leave it at 1"
            )
        process = ProcessInfo(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)
        cache = self.cache
        with nullcontext() if cache is None else owned(cache, "a run that encodes pairs", wait=True):
            process.barrier()  # no process writes before the first one owns the folder
            for kind, batch_size, share in self._kinds(method):
                pairs = encoded_pairs(cache, backbone, kind, process)
                self._encoded.append((_placed(pairs, trainer.strategy.root_device), batch_size, share))
            self._held_out = encoded_pairs(cache, backbone, self._validation(asked), process)
            process.barrier()

    def _kinds(self, method: Method) -> list[tuple[PairSet, int, float]]:
        """What is trained on, with the batch size and the share of the steps."""
        common: dict[str, Any] = {
            "split": "train",
            "resolution": self.resolution,
            "mix": self.mix,
            "variants": self.variants,
        }
        kinds = []
        if self.rest > SLACK or not self.clips:
            exact = PairSet(self.seed, self.pairs, frames=self.frames, preparation=Preparation.of(method), **common)
            kinds.append((exact, self.batch_size, self.rest))
        for number, clips in enumerate(self.clips):
            film, plain = Preparation.of(method, film=clips.kind == "filmed"), clips.kind == "plain"
            seed = self.seed + number
            made = PairSet(seed, clips.pairs, frames=clips.frames, preparation=film, plain=plain, **common)
            kinds.append((made, clips.batch_size, clips.share))
        return kinds

    def _validation(self, asked: Preparation) -> PairSet:
        frames = self.clips[0].frames if self.clips else self.frames if asked.inputs else 1
        return PairSet(self.seed, self.validation_pairs, "test", self.resolution, frames=frames, preparation=asked)

    def train_dataloader(self) -> DataLoader:
        """Batches from the trainer's current step on.

        Raises:
            UserError: the trainer has neither ``max_steps`` nor ``max_time``.
        """
        trainer: Any = self.trainer
        timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)
        if trainer.max_steps < 1 and not timed:
            raise UserError("nano pairs are endless; set trainer.max_steps, or trainer.max_time such as 00:00:10:00")
        repeats, ranks = trainer.accumulate_grad_batches, trainer.world_size
        steps = trainer.max_steps if trainer.max_steps > 0 else ENDLESS
        sampler = StepSampler(steps * repeats, trainer.global_step * repeats, trainer.global_rank, ranks)
        kinds = [(PairBatches(pairs, size, self.seed), share) for pairs, size, share in self._encoded]
        return DataLoader(MixedBatches(kinds, self.seed, repeats * ranks), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """The held-out pairs in order."""
        pairs, size = self._held_out, min(self.batch_size, LARGEST_VALIDATION)
        starts = range(0, len(pairs), size)
        batches: Any = [pairs.batch(range(start, min(start + size, len(pairs)))) for start in starts]
        return DataLoader(batches, batch_size=None)


def _placed(pairs: EncodedPairs, device: torch.device) -> EncodedPairs:
    """On a GPU with room for them, so that no step waits for a copy; else where they are."""
    if device.type != "cuda" or pairs.nbytes > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return pairs
    return pairs.to(device)
