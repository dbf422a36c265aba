"""``python -m imvideoedit.nano.fit_vlm --output FOLDER``: train a tiny Qwen3-VL on edits of nano scenes.

It is transformers' class. It sees frames of the source and the first frame after the edit, and learns by the
loss of a language model to say the instruction, and then what the scene is afterwards. In a share of the examples the
instruction is to describe the scene, or names a thing by its place. The folder is for ``method.vlm``.

Shapes: B batch, T tokens, P patches, V values of a patch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing_folder
from imvideoedit.methods.vision_inputs import patches, prompt, times_of, tokens_of
from imvideoedit.methods.vision_language import RATE
from imvideoedit.nano.text import END, START, build_vlm_tokenizer
from imvideoedit.world.edits import Edit, sample_edit
from imvideoedit.world.inputs import first_frame
from imvideoedit.world.located import sample_located
from imvideoedit.world.render import render

SIDE, PATCH, MERGE, GROUP = (
    64,
    8,
    2,
    2,
)  # pixels of a frame and of a patch; patches of a token's side; frames of a patch
TEXT = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 24}
VISION = {"hidden_size": 64, "intermediate_size": 128, "depth": 2, "num_heads": 4}
FRAMES, SEEN = 17, 4  # of a clip, and those of it that are seen
STILLS, LOCATED, DESCRIBED = 0.3, 0.2, 0.15  # shares of the examples: one frame; things named by their place; no edit
BATCH, RATE_OF_STEPS, WARMUP = 32, 3e-3, 40
HELD_OUT = 64  # edits of test compositions
DESCRIBE = "describe it"


def build_vlm() -> Any:
    """A Qwen3-VL with random weights."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = build_vlm_tokenizer()
    rotary = {"rope_type": "default", "mrope_section": [4, 4, 4], "mrope_interleaved": True, "rope_theta": 1e4}
    shared = {"num_key_value_heads": 2, "max_position_embeddings": 1024, "rope_parameters": rotary}
    vision: dict[str, Any] = {"patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": GROUP}
    vision |= {"out_hidden_size": TEXT["hidden_size"], "deepstack_visual_indexes": [0]}
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image_token_id", "<|image_pad|>"),
            ("video_token_id", "<|video_pad|>"),
            ("vision_start_token_id", "<|vision_start|>"),
            ("vision_end_token_id", "<|vision_end|>"),
        )
    }
    config = Qwen3VLConfig(
        text_config={**TEXT, **shared, "vocab_size": len(tokenizer)},
        vision_config={**VISION, **vision, "num_position_embeddings": (SIDE // PATCH) ** 2},
        tie_word_embeddings=True,
        **ids,
    )
    return Qwen3VLForConditionalGeneration(config)


@dataclass(frozen=True)
class Lesson:
    """An example: what is seen, the instruction, and what the scene is afterwards.

    Attributes:
        frames: of the source that are seen, uint8 ``[F, H, W, 3]``, at ``seconds``.
        reference: the first frame afterwards, uint8 ``[H, W, 3]``.
    """

    frames: np.ndarray
    seconds: tuple[float, ...]
    reference: np.ndarray
    instruction: str
    answer: str


def lesson(seed: int, place: int, split: str) -> Lesson:
    """Example ``place`` of a seed."""
    rng = np.random.default_rng((seed, place))
    edit = sample_located(rng, split) if rng.random() < LOCATED else sample_edit(rng, split)
    if rng.random() < DESCRIBED:
        edit = Edit("identity", edit.source, edit.source, DESCRIBE)
    frames = 1 if rng.random() < STILLS else FRAMES
    places = np.linspace(0, frames - 1, min(SEEN, frames)).round().astype(int)
    source = render(edit.source, frames, (SIDE, SIDE))
    seconds = tuple(float(each) / RATE for each in places)
    reference = first_frame(edit.target, (SIDE, SIDE))
    return Lesson(source[places], seconds, reference, edit.instruction, edit.edited_prompt)


def batch_of(lessons: Sequence[Lesson], tokenizer: Any) -> dict[str, Tensor]:
    """What the model takes; labels are of the instruction and the answer alone."""
    rows, seen, stills, grids, still_grids = [], [], [], [], []
    for each in lessons:
        values_PV, grid = patches(list(each.frames), (SIDE, SIDE), PATCH, MERGE, GROUP)
        still_PV, still_grid = patches([each.reference], (SIDE, SIDE), PATCH, MERGE, GROUP)
        begin = prompt(times_of(each.seconds, GROUP), tokens_of(grid, MERGE) // grid[0], [tokens_of(still_grid, MERGE)])
        begun = tokenizer(begin, add_special_tokens=False).input_ids
        spoken = f"{each.instruction}{END}{START}assistant {each.answer}{END}"
        rows.append((begun, tokenizer(spoken, add_special_tokens=False).input_ids))
        seen.append(values_PV)
        stills.append(still_PV)
        grids.append(grid)
        still_grids.append(still_grid)
    longest = max(len(begun) + len(spoken) for begun, spoken in rows)
    ids_BT = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels_BT = torch.full_like(ids_BT, -100)
    for row, (begun, spoken) in enumerate(rows):
        ids_BT[row, : len(begun) + len(spoken)] = torch.tensor(begun + spoken)
        labels_BT[row, len(begun) : len(begun) + len(spoken)] = torch.tensor(spoken)
    image, video = (tokenizer.convert_tokens_to_ids(token) for token in ("<|image_pad|>", "<|video_pad|>"))
    return {
        "input_ids": ids_BT,
        "attention_mask": (ids_BT != tokenizer.pad_token_id).long(),
        "mm_token_type_ids": (ids_BT == image) + 2 * (ids_BT == video),
        "pixel_values_videos": torch.cat(seen),
        "pixel_values": torch.cat(stills),
        "video_grid_thw": torch.tensor(grids),
        "image_grid_thw": torch.tensor(still_grids),
        "labels": labels_BT,
    }


def fit(steps: int, count: int, seed: int) -> Any:
    """A Qwen3-VL trained on ``count`` edits of training compositions."""
    torch.manual_seed(seed)
    model, tokenizer = build_vlm().train(), build_vlm_tokenizer()
    lessons = [lesson(seed, place, "train") for place in range(count)]
    optimizer = torch.optim.AdamW(model.parameters(), RATE_OF_STEPS, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for step in range(steps):
        chosen = [lessons[place] for place in torch.randint(count, (BATCH,)).tolist()]
        loss = model(**batch_of(chosen, tokenizer), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.no_grad()
def words_right(model: Any, lessons: Sequence[Lesson], tokenizer: Any) -> float:
    """Share of the words of instructions and answers that the model finds likeliest, given all before them."""
    batch = batch_of(lessons, tokenizer)
    labels_BT = batch.pop("labels")[:, 1:]
    found_BT = model(**batch, use_cache=False).logits.argmax(-1)[:, :-1]
    asked_BT = labels_BT != -100
    return float((found_BT == labels_BT)[asked_BT].float().mean())


def mixed_up(lessons: Sequence[Lesson]) -> list[Lesson]:
    """The same texts, each with what another example shows."""
    others = [*lessons[1:], lessons[0]]
    return [
        Lesson(other.frames, other.seconds, other.reference, each.instruction, each.answer)
        for each, other in zip(lessons, others, strict=True)
    ]


@exit_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m imvideoedit.nano.fit_vlm", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; it must not exist, or is replaced")
    parser.add_argument("--steps", type=int, default=600, help=f"of {BATCH} edits (default: 600)")
    parser.add_argument("--edits", type=int, default=4000, help="different ones (default: 4000)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    if given.steps < 1 or given.edits < 1:
        raise UserError(f"--steps is {given.steps} and --edits {given.edits}; give 1 or more of each")
    model, tokenizer = fit(given.steps, given.edits, given.seed), build_vlm_tokenizer()
    held_out = [lesson(given.seed + 1, place, "test") for place in range(HELD_OUT)]
    right, blind = (words_right(model, each, tokenizer) for each in (held_out, mixed_up(held_out)))
    print(f"{right:.0%} of the words of {HELD_OUT} held-out edits; {blind:.0%} where it sees another edit")
    with replacing_folder(given.output) as temporary:
        model.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


if __name__ == "__main__":
    main()
