"""``python -m imvideoedit.evaluation.nano.clip_edits``: LoRA-Edit on nano clips whose exact edit is known.

Each clip has a moving thing that is recoloured, replaced, or changed in an attribute; its mask, with a margin, and the
exact first frame are given. What the model makes is measured as it is, without the source's pixels outside the mask.

Shapes: F frames, H W pixels.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import maximum_filter

from imvideoedit.common.errors import exit_cleanly
from imvideoedit.common.files import replacing
from imvideoedit.editing.conditions import decode
from imvideoedit.editing.denoiser import Denoiser
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.evaluation.nano.exact import region_psnr
from imvideoedit.fitting.samples import encode_example
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.lora_edit_samples import stage_samples
from imvideoedit.training.precision import fast_precision
from imvideoedit.video.geometry import from_model, to_model
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.world.edits import Edit, sample_edit

TASKS = ("color_texture", "rigid_replacement", "nonrigid_replacement", "local_attribute")
FRAMES, SIZE, MARGIN = 17, (64, 64), 3


@dataclass(frozen=True)
class Case:
    """A clip with its exact edit.

    Attributes:
        source, target: uint8 ``[F, H, W, 3]``.
        changed: bool ``[F, H, W]``, where they differ.
        mask: uint8 ``[F, H, W]``, white where the edit is.
    """

    task: str
    source: np.ndarray
    target: np.ndarray
    changed: np.ndarray
    mask: np.ndarray
    source_prompt: str
    edited_prompt: str


def sample_case(rng: np.random.Generator, task: str) -> Case:
    """A random case of the test split whose edited thing moves."""
    while True:
        edit = sample_edit(rng, "test", task)
        if edit.source.things[0].motion != "still" and np.mean(edit.inputs(1, SIZE)["mask"] != 0) > 0.02:
            return case_of(edit)


def case_of(edit: Edit) -> Case:
    """The case of an edit."""
    source, target, changed = edit.render(FRAMES, SIZE)
    shown = np.asarray(edit.inputs(FRAMES, SIZE)["mask"]).astype(np.uint8) * 255
    mask = maximum_filter(shown, (1, 2 * MARGIN + 1, 2 * MARGIN + 1), mode="constant")
    return Case(edit.task, source, target, changed, mask, edit.source_prompt, edit.edited_prompt)


def fit_stage(
    backbone: Backbone,
    method: LoraEdit,
    case: Case,
    stage: int,
    edited: Mapping[int, np.ndarray],
    steps: int,
    lr: float,
) -> list[float]:
    """Train the installed deltas on the samples of a stage; the losses of the steps."""
    samples = stage_samples(case.source, case.mask, edited, stage)
    prompts = {False: case.source_prompt, True: case.edited_prompt}
    batches = [encode_example(backbone, method, each.example, prompts[each.edited], SIZE) for each in samples]
    rows = [place for place, each in enumerate(samples) for _ in range(each.repeats)]
    rng, generator = np.random.default_rng(stage), torch.Generator().manual_seed(stage)
    order = np.concatenate([rng.permutation(rows) for _ in range(-(-steps // len(rows)))])[:steps]
    optimizer = torch.optim.AdamW(method.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.01)
    losses = []
    for row in order:
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=fast_precision() == "bf16-mixed"):
            loss = method.losses(backbone.transformer, batches[row], generator)["flow_matching"].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def edit_clip(backbone: Backbone, method: LoraEdit, case: Case, first_HWC: np.ndarray, steps: int) -> np.ndarray:
    """The clip as the model edits it after a first frame: uint8 ``[F, H, W, 3]``."""
    example = {"source": case.source, "mask": case.mask, "first_frame": first_HWC[None]}
    batch = encode_example(backbone, method, example, case.edited_prompt, SIZE)
    config = SamplingConfig(steps=steps, guidance=1.0, shift=backbone.shift)
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=fast_precision() == "bf16-mixed"):
        latents = Denoiser(backbone.transformer, method, backbone.shift, backbone.vae_temporal, config)(batch, 0)
    return np.stack(list(decode(backbone, latents.float(), len(case.source))))


def through(backbone: Backbone, video_FHWC: np.ndarray) -> np.ndarray:
    """A video through the autoencoder: what no edit in its latents surpasses."""
    return from_model(backbone.decode_video(backbone.encode_video(to_model(list(video_FHWC)))))


def scores(case: Case, made_FHWC: np.ndarray) -> dict[str, float]:
    """PSNR (dB) of the frames after the first, by region."""
    return region_psnr(made_FHWC[1:], case.target[1:], case.changed[1:])


def compare(backbone: Backbone, case: Case, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Scores of the fit, of the base without deltas, of naive LoRA without a mask, of copying, and of the ceiling."""
    nothing_kept = Case(**{**vars(case), "mask": np.full_like(case.mask, 255)})
    found = {"copy": scores(case, case.source), "ceiling": scores(case, through(backbone, case.target))}
    for name, clip, steps in (
        ("base", case, 0),
        ("lora_edit", case, options.steps),
        ("naive", nothing_kept, options.steps),
    ):
        torch.manual_seed(0)
        method = LoraEdit(options.rank, options.target)
        method.install(backbone.transformer)
        if steps:
            fit_stage(backbone, method, clip, 1, {}, steps, options.lr)
        found[name] = scores(case, edit_clip(backbone, method, clip, case.target[0], options.sampling))
        method.uninstall()
    return found


@exit_cleanly
def main(arguments: list[str] | None = None) -> None:
    """Compare on some clips, and print and write the means."""
    parser = argparse.ArgumentParser(prog="python -m imvideoedit.evaluation.nano.clip_edits", description=__doc__)
    parser.add_argument("--backbone", default="nano_image_to_video", help="a name or a folder")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100, help="of the first stage")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--target", choices=("paper", "release"), default="paper")
    parser.add_argument("--sampling", type=int, default=15, help="solver steps of an edit")
    parser.add_argument("--output", type=Path, help="a JSON file for the scores of every clip")
    options = parser.parse_args(arguments)
    backbone = load_backbone(options.backbone)
    rows: list[dict[str, Any]] = []
    for number in range(options.clips):
        case = sample_case(np.random.default_rng((11, number)), TASKS[number % len(TASKS)])
        rows.append({"task": case.task} | compare(backbone, case, options))
        print(json.dumps(rows[-1]), flush=True)
        if options.output:
            with replacing(options.output) as path:
                path.write_text(json.dumps(rows, indent=1) + "\n")
    for name in rows[0].keys() - {"task"}:
        means = {region: np.nanmean([row[name][region] for row in rows]) for region in rows[0][name]}
        print(f"{name:10}", "  ".join(f"{region} {value:.1f} dB" for region, value in means.items()))


if __name__ == "__main__":
    main()
