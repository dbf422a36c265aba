"""Batches of an optimizer step: how many are accumulated, and which of their texts are left empty."""

import dataclasses

import torch

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch


def accumulation_steps(global_batch: int, batch_size: int, processes: int) -> int:
    """Batches that each process accumulates for an optimizer step.

    Raises:
        UserError: ``global_batch`` is not a multiple of ``batch_size * processes``.
    """
    if global_batch % (batch_size * processes):
        fitting = [n for n in range(1, global_batch // batch_size + 1) if global_batch % (batch_size * n) == 0]
        choices = f"; {', '.join(map(str, fitting))} can" if fitting else ""
        raise UserError(
            f"{processes} processes with data.batch_size={batch_size} cannot make global_batch={global_batch} by "
            f"accumulation{choices}: change trainer.devices, trainer.num_nodes, data.batch_size or global_batch"
        )
    return global_batch // (batch_size * processes)


def drop_texts(batch: EditBatch, probability: float, generator: torch.Generator) -> EditBatch:
    """Replace each text by the empty one with a probability; a batch without ``empty_TD`` is returned as it is."""
    if batch.empty_TD is None:
        return batch
    kept_B = torch.rand(len(batch.text_BTD), generator=generator, device=generator.device) >= probability
    kept_B11 = kept_B.to(batch.text_BTD.device)[:, None, None]
    return dataclasses.replace(batch, text_BTD=torch.where(kept_B11, batch.text_BTD, batch.empty_TD))
