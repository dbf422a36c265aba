"""Single-frame training pairs of the nano world, encoded once, so that training touches the transformer only.

Shapes: B batch, C latent channels, F frames (one), T text tokens, D text width.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from imvideoedit.backbone import Backbone
from imvideoedit.errors import UserError
from imvideoedit.methods.base import EditBatch
from imvideoedit.nano.edits import Edit, sample_edit
from imvideoedit.nano.grammar import apply_instruction
from imvideoedit.nano.world import to_tensor

FULL_PROMPT, INSTRUCTION_ONLY = 0.7, 0.2  # shares of the texts; the rest is empty, which guidance needs
SPLITS = ("train", "test")


def sample_pair(seed: int, index: int, split: str = "train") -> tuple[Edit, str]:
    """Pair ``index`` of a seed: an edit of the split's compositions and the text that training sees with it.

    The text is the edited prompt, or only what the instruction says, or nothing; of the test split always the first.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    edit = sample_edit(rng, split)
    draw = rng.random()
    if split == "test" or draw < FULL_PROMPT:
        return edit, edit.edited_prompt
    if draw < FULL_PROMPT + INSTRUCTION_ONLY:
        partial = apply_instruction(edit.instruction)
        assert partial is not None, f"the grammar does not read its own instruction {edit.instruction!r}"
        return edit, partial
    return edit, ""


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs in memory: half-precision latents ``[N, C, 1, H', W']``, each text once, cut after its last token."""

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    text_of_pair: list[int]
    texts_TD: list[Tensor]
    tokens: int

    def __len__(self) -> int:
        return len(self.text_of_pair)

    def batch(self, indices: Sequence[int]) -> EditBatch:
        """Stack pairs into a float32 batch; texts are padded with zeros as the backbone's encoder does."""
        chosen = torch.as_tensor(list(indices))
        width = self.texts_TD[0].shape[-1]
        text_BTD = torch.zeros(len(chosen), self.tokens, width)
        for row, index in enumerate(indices):
            text_TD = self.texts_TD[self.text_of_pair[index]]
            text_BTD[row, : len(text_TD)] = text_TD.float()
        return EditBatch(self.source_NCFHW[chosen].float(), self.target_NCFHW[chosen].float(), text_BTD)


@torch.no_grad()
def encode_pairs(
    backbone: Backbone, seed: int, count: int, split: str, resolution: int = 64, chunk: int = 64
) -> EncodedPairs:
    """Render and encode pairs 0 to ``count - 1`` of a seed, with a progress bar.

    Args:
        resolution: height and width in pixels; must divide by the backbone's ``pixel_multiple``.
        chunk: pairs encoded at a time.
    """
    sources, targets, texts = [], [], []
    starts = range(0, count, chunk)
    for start in track(starts, description=f"encoding {count} {split} pairs", transient=True):
        pairs = [sample_pair(seed, index, split) for index in range(start, min(start + chunk, count))]
        texts += [text for _, text in pairs]
        rendered = [edit.render(1, (resolution, resolution)) for edit, _ in pairs]
        sources.append(_latents(backbone, [source for source, _, _ in rendered]))
        targets.append(_latents(backbone, [target for _, target, _ in rendered]))
    unique = list(dict.fromkeys(texts))
    position = {text: i for i, text in enumerate(unique)}
    encoded: list[Tensor] = []
    tokens = 0
    for start in track(range(0, len(unique), chunk), description=f"encoding {len(unique)} texts", transient=True):
        text_BTD = backbone.encode_text(unique[start : start + chunk]).float().cpu()
        tokens = text_BTD.shape[1]
        encoded += [_without_padding(text_TD) for text_TD in text_BTD]
    return EncodedPairs(torch.cat(sources), torch.cat(targets), [position[t] for t in texts], encoded, tokens)


def _latents(backbone: Backbone, images: list[np.ndarray]) -> Tensor:
    video_BCFHW = torch.stack([to_tensor(image) for image in images]).to(backbone.device)
    return backbone.encode_video(video_BCFHW).half().cpu()


def _without_padding(text_TD: Tensor) -> Tensor:
    filled = text_TD.abs().sum(-1).nonzero()
    return text_TD[: int(filled[-1]) + 1 if len(filled) else 0].half().clone()


class PairBatches(Dataset):
    """Endless batches of encoded pairs: batch i is a function of the seed and i alone, so a resumed run sees the same.

    Every pair comes once in each pass, in an order that the seed and the pass decide; a batch may span two passes.
    """

    def __init__(self, pairs: EncodedPairs, batch_size: int, seed: int) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))

    def indices(self, index: int) -> list[int]:
        """The pairs of batch ``index``."""
        first = index * self.batch_size
        places = (divmod(place, len(self.pairs)) for place in range(first, first + self.batch_size))
        return [int(self._order(epoch)[offset]) for epoch, offset in places]

    def __getitem__(self, index: int) -> EditBatch:
        return self.pairs.batch(self.indices(index))


class StepSampler(Sampler[int]):
    """Batch indices of one process from step ``start`` on: ``rank, rank + world, …``; its length counts all steps."""

    def __init__(self, steps: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.steps, self.start, self.rank, self.world = steps, start, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        return (step * self.world + self.rank for step in range(self.start, self.steps))


class NanoPairs(LightningDataModule):
    """Training pairs of the nano world's training compositions, and held-out ones to validate on.

    Args:
        pairs: number of training pairs, each a rendered edit.
        batch_size: pairs a step.
        seed: decides pairs and order.
        resolution: pixels of a side.
        validation_pairs: number of test-composition pairs for the fixed-timestep validation loss; at least 1.

    Raises:
        UserError: a count is below 1, or the resolution does not suit the backbone.
    """

    def __init__(
        self, pairs: int = 20000, batch_size: int = 16, seed: int = 0, resolution: int = 64, validation_pairs: int = 64
    ) -> None:
        super().__init__()
        for name, value in {"pairs": pairs, "batch_size": batch_size, "validation_pairs": validation_pairs}.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.resolution, self.validation_pairs = resolution, validation_pairs
        self._encoded: dict[str, EncodedPairs] = {}

    def setup(self, stage: str) -> None:
        """Render and encode everything with the training task's backbone; done once."""
        if self._encoded:
            return
        backbone = self._trainer.lightning_module.backbone
        if self.resolution % backbone.pixel_multiple:
            raise UserError(
                f"data.resolution is {self.resolution}; the backbone {backbone.name} takes multiples of "
                f"{backbone.pixel_multiple}"
            )
        for split, count in zip(SPLITS, (self.pairs, self.validation_pairs), strict=True):
            self._encoded[split] = encode_pairs(backbone, self.seed, count, split, self.resolution)

    @property
    def _trainer(self) -> Any:
        if self.trainer is None:
            raise RuntimeError("this data module encodes with the backbone of the task that a Trainer fits")
        return self.trainer

    def train_dataloader(self) -> DataLoader:
        """Batches from the step on at which the trainer stands.

        Raises:
            UserError: the trainer has no last step, and the pairs have no end.
        """
        trainer = self._trainer
        if trainer.max_steps < 1:
            raise UserError("nano pairs have no end; set trainer.max_steps to the number of optimizer steps")
        repeats = trainer.accumulate_grad_batches
        sampler = StepSampler(
            trainer.max_steps * repeats, trainer.global_step * repeats, trainer.global_rank, trainer.world_size
        )
        batches = PairBatches(self._encoded["train"], self.batch_size, self.seed)
        return DataLoader(batches, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """The held-out pairs in order."""
        pairs = self._encoded["test"]
        starts = range(0, len(pairs), self.batch_size)
        batches: Any = [pairs.batch(range(start, min(start + self.batch_size, len(pairs)))) for start in starts]
        return DataLoader(batches, batch_size=None)
