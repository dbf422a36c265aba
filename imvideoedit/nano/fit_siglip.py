"""``python -m imvideoedit.nano.fit_siglip --output FOLDER``: train a tiny SigLIP on pictures and captions of scenes.

It is transformers' class with its own loss; the default takes some three minutes of one core. The folder is for
``method.siglip``.

Shapes: B batch, N pictures, H W pixels, T text tokens.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing_folder
from imvideoedit.nano.text import build_tokenizer
from imvideoedit.world.grammar import describe, without_motion
from imvideoedit.world.render import render
from imvideoedit.world.scenes import sample_scene

SIDE, PATCH, TOKENS = 64, 8, 64  # pixels of a picture and of a patch; tokens of a caption
TOWER = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
BATCH, RATE, WARMUP = 128, 2e-3, 50
HELD_OUT = 256  # pictures of test compositions
GROUP = 64  # captions that one picture is compared with


def build_siglip() -> Any:
    """A SigLIP with random weights."""
    tokenizer = build_tokenizer()
    marks = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    text = {**TOWER, "num_hidden_layers": 1, "vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, **marks}
    text["pad_token_id"] = tokenizer.pad_token_id
    vision = {**TOWER, "image_size": SIDE, "patch_size": PATCH}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    # As the paper begins: of many pairs nearly all are none, and transformers draws these two at random.
    nn.init.constant_(model.logit_scale, math.log(10))
    nn.init.constant_(model.logit_bias, -10)
    return model


def scenes(seed: int, count: int, split: str) -> tuple[Tensor, Tensor]:
    """Pictures uint8 ``[N, H, W, 3]`` and the tokens of their captions ``[N, T]``.

    Args:
        split: of the compositions, ``train`` or ``test``.
    """
    drawn = [sample_scene(np.random.default_rng((seed, place)), split) for place in range(count)]
    pictures_NHWC = np.stack([render(scene, 1, (SIDE, SIDE))[0] for scene in drawn])
    texts = [without_motion(describe(scene)) for scene in drawn]
    how: dict[str, Any] = {"padding": "max_length", "max_length": TOKENS, "truncation": True, "return_tensors": "pt"}
    return torch.from_numpy(pictures_NHWC), build_tokenizer()(texts, **how).input_ids


def fit(steps: int, pictures: int, seed: int) -> Any:
    """A SigLIP trained by its pairwise sigmoid loss on ``pictures`` of training compositions."""
    torch.manual_seed(seed)
    model = build_siglip().train()
    pictures_NHWC, ids_NT = scenes(seed, pictures, "train")
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps)),
    )
    for step in range(steps):
        chosen = torch.randperm(pictures)[:BATCH]
        loss = model(ids_NT[chosen], as_pixels(pictures_NHWC[chosen]), return_loss=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def as_pixels(pictures_NHWC: Tensor) -> Tensor:
    """As SigLIP takes pictures: float ``[N, 3, H, W]`` in [-1, 1]."""
    return pictures_NHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def matched(model: Any, seed: int) -> float:
    """Share of held-out pictures whose own caption is the likeliest of ``GROUP``."""
    pictures_NHWC, ids_NT = scenes(seed, HELD_OUT, "test")
    hits = 0
    for start in range(0, HELD_OUT, GROUP):
        part = slice(start, start + GROUP)
        scores = model(ids_NT[part], as_pixels(pictures_NHWC[part])).logits_per_image
        hits += int((scores.argmax(1) == torch.arange(GROUP)).sum())
    return hits / HELD_OUT


@exit_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m imvideoedit.nano.fit_siglip", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; it must not exist, or is replaced")
    parser.add_argument("--steps", type=int, default=600, help=f"of {BATCH} pictures (default: 600)")
    parser.add_argument("--pictures", type=int, default=8000, help="different ones (default: 8000)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    if given.steps < 1 or given.pictures < BATCH:
        raise UserError(f"--steps is {given.steps}, --pictures {given.pictures}; give 1 or more, and {BATCH} or more")
    model = fit(given.steps, given.pictures, given.seed)
    print(f"{matched(model, given.seed + 1):.0%} of {HELD_OUT} held-out pictures find their caption among {GROUP}")
    with replacing_folder(given.output) as temporary:
        model.half().save_pretrained(temporary)


if __name__ == "__main__":
    main()
