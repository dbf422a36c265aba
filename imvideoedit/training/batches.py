"""What training does to a batch before the method sees it."""

import dataclasses
from typing import Any

import torch

from imvideoedit.edit_batch import EditBatch


def drop_texts(batch: Any, share: float, generator: torch.Generator) -> Any:
    """Leave a share of the texts empty; an encoded batch without the empty text's embedding stays as it is.

    Args:
        batch: an ``EditBatch``, or a mapping whose ``edited_prompt`` is a list of texts.
        share: in [0, 1].
    """
    if isinstance(batch, EditBatch) and batch.empty_TD is None:
        return batch
    size = len(batch.text_BTD if isinstance(batch, EditBatch) else batch["edited_prompt"])
    kept_B = torch.rand(size, generator=generator) >= share
    if isinstance(batch, EditBatch):
        assert batch.empty_TD is not None
        kept_B11 = kept_B.to(batch.text_BTD.device)[:, None, None]
        return dataclasses.replace(batch, text_BTD=torch.where(kept_B11, batch.text_BTD, batch.empty_TD))
    prompts = batch["edited_prompt"]
    return {**batch, "edited_prompt": [p if keep else "" for p, keep in zip(prompts, kept_B, strict=True)]}
