"""A stage's training samples as a data module: encoded once, as an edit encodes them, and drawn in a fixed order.

Shapes: F frames, H W pixels.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from imvideoedit.data.buckets import BucketBatchSampler, ResumableLoader
from imvideoedit.data.sizes import fit
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.conditions import ConditionEncoder
from imvideoedit.fitting.plan import Plan
from imvideoedit.fitting.texts import Texts
from imvideoedit.methods.base import Method
from imvideoedit.methods.lora_edit_samples import Sample, stage_samples
from imvideoedit.wan.backbone import Backbone


def encode_example(
    backbone: Backbone, method: Method, example: Mapping[str, Any], text_BTD: Tensor, size: tuple[int, int]
) -> EditBatch:
    """An example as an edit of its source has it, with its target if it has one: derived, resized, padded.

    Args:
        backbone: with its autoencoder, and the image encoder that it may have.
        method: installed in the backbone.
        example: pixels of :func:`imvideoedit.methods.lora_edit_samples.stage_samples`, of any size and length.
        text_BTD: embedding of the example's prompt.
        size: the model's height and width.
    """
    source_FHWC = example["source"]
    encoder = ConditionEncoder(backbone, source_FHWC.shape[1:3], size)
    declared = [each for each in method.inputs if each.name in example]
    given = {each.name: partial(iter, example[each.name]) for each in declared}
    source_BCFHW, count = encoder.latents(iter(source_FHWC))
    target_BCFHW = encoder.latents(iter(example["target"]))[0] if "target" in example else None
    conditions = encoder.conditions(declared, given, count)
    conditions |= encoder.derived(method, declared, given, partial(iter, source_FHWC), count)
    return EditBatch(source_BCFHW, target_BCFHW, text_BTD, conditions).to("cpu")


def encoded_samples(
    plan: Plan, backbone: Backbone, masks_FHW: np.ndarray, texts: Texts, place: int, device: torch.device
) -> tuple[list[EditBatch], list[int]]:
    """The samples of a stage, 0 or 1, and how often each comes in a round.

    Args:
        backbone: with all its parts, on the CPU; encoders are on the device while they work.
        masks_FHW: of the clip.
    """
    frames_FHWC = np.stack(list(plan.clip))
    edited = {number: fit(image, frames_FHWC.shape[1:3]) for number, image in plan.later.items()}
    found = stage_samples(frames_FHWC, masks_FHW, edited, place + 1, plan.parts)
    prompts = [plan.prefix + texts.of(each.start, each.edited) for each in found]
    batches = encode_samples(backbone, plan.method(), found, prompts, plan.size, device)
    return batches, [each.repeats for each in found]


def encode_samples(
    backbone: Backbone,
    method: Method,
    samples: Sequence[Sample],
    prompts: Sequence[str],
    size: tuple[int, int],
    device: torch.device,
) -> list[EditBatch]:
    """Samples with their prompts as batches, on the CPU.

    Args:
        backbone: with all its parts; encoders are on the device while they work, and then on the CPU.
        method: not installed; it is not changed.
        size: the model's height and width.
    """
    with on_device(device, backbone.text_encoder):  # alone: it is the largest part by far
        embedded = {prompt: backbone.encode_text([prompt]).cpu() for prompt in prompts}
    method.install(backbone.transformer)
    try:
        with on_device(device, backbone.vae, backbone.image_encoder):
            return [
                encode_example(backbone, method, each.example, embedded[prompt], size)
                for each, prompt in zip(samples, prompts, strict=True)
            ]
    finally:
        method.uninstall()


@contextlib.contextmanager
def on_device(device: torch.device, *parts: Any) -> Iterator[None]:
    """Inside, parts of a backbone are on a device, else on the CPU; None for one that it lacks."""
    present = [part for part in parts if part is not None]
    try:
        for part in present:
            part.to(device)
        yield
    finally:
        for part in present:
            part.to("cpu")


class StageSamples(LightningDataModule):
    """Batches of one sample, each as often as its weight says in every round; rounds are shuffled by the seed.

    Args:
        samples: of a stage.
        weights: how often each comes in a round, at least 1.
        steps: of the stage.
        seed: of the order.
    """

    def __init__(self, samples: Sequence[EditBatch], weights: Sequence[int], steps: int, seed: int) -> None:
        super().__init__()
        self._rows = [place for place, weight in enumerate(weights) for _ in range(weight)]
        self._samples, self._seed = samples, seed
        self._rounds = -(-steps // len(self._rows))

    def train_dataloader(self) -> ResumableLoader:
        """In an order that depends on the seed alone."""
        buckets = [(place,) for place in self._rows]
        sampler = BucketBatchSampler(buckets, 1, self._seed, epochs=self._rounds)
        return ResumableLoader(_Rows(self._samples, self._rows), sampler, 0)


class _Rows(Dataset):
    """Samples by row."""

    def __init__(self, samples: Sequence[EditBatch], rows: Sequence[int]) -> None:
        self._samples, self._rows = samples, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> EditBatch:
        return self._samples[self._rows[row]]

    def collate(self, items: Sequence[EditBatch]) -> EditBatch:
        """The batch, which is one sample."""
        (sample,) = items
        return sample
