"""LoRA-Edit fitted to nano clips as ``imvideoedit-fit`` fits it, and what comes out, compared with the exact edit.

What the model makes is measured as it is, without the source's pixels outside the mask.

Shapes: F frames, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from imvideoedit.editing.conditions import decode
from imvideoedit.editing.denoiser import Denoiser
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.evaluation.nano.clip_cases import LATE, SIZE, Case
from imvideoedit.evaluation.nano.exact import region_psnr
from imvideoedit.fitting.samples import StageSamples, encode_example, encode_samples, on_device
from imvideoedit.fitting.stage_training import Stage, train_stage
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.lora_edit_samples import stage_samples
from imvideoedit.training.precision import fast_precision
from imvideoedit.video.geometry import from_model, to_model
from imvideoedit.wan.backbone import Backbone

Scores = dict[str, float]
SECOND = 16  # the other edited frame, where there is one


@dataclass(frozen=True)
class Fits:
    """How clips are fitted and edited.

    Attributes:
        steps: of each stage.
        sampling: solver steps of an edit.
    """

    steps: int = 100
    rate: float = 1e-3
    rank: int = 16
    target: str = "paper"
    sampling: int = 15

    def method(self) -> LoraEdit:
        """A fresh one, whose deltas change nothing."""
        return LoraEdit(self.rank, self.target)  # type: ignore[arg-type]


def fit_stage(
    backbone: Backbone, case: Case, edited: Mapping[int, np.ndarray], how: Fits, folder: Path, start: Path | None = None
) -> LoraEdit:
    """Train the first stage, or the second one from ``start``; goes on from what is in the folder.

    Args:
        backbone: with all its parts.
        edited: frames of the second stage by their numbers.
        folder: takes ``adapter.safetensors``, and checkpoints.
        start: the first stage's adapter; None for the first stage.

    Returns:
        The method, which stays in the transformer.
    """
    place = 0 if start is None else 1
    samples, device = stage_samples(case.source, case.mask, edited, place + 1), backbone.device
    prompts = [case.edited_prompt if each.edited else case.source_prompt for each in samples]
    batches = encode_samples(backbone, how.method(), samples, prompts, SIZE, device)
    stage = Stage(
        name=f"stage {place + 1}",
        folder=folder / "checkpoints",
        adapter=folder / "adapter.safetensors",
        steps=how.steps,
        rate=how.rate,
        seed=place,
        start=start,
        eight_bit=False,
        checkpointing=False,
        offload=False,
        checkpoint_every=25,
        sampling=_sampling(backbone, how),
        about={},
    )
    method, bare = how.method(), replace(backbone, vae=None, text_encoder=None, tokenizer=None, image_encoder=None)
    drawn = StageSamples(batches, [each.repeats for each in samples], how.steps, place)
    train_stage(stage, bare, method, drawn, device)
    return method


def edit_clip(backbone: Backbone, method: LoraEdit, case: Case, first_HWC: np.ndarray, how: Fits) -> np.ndarray:
    """The clip as the model edits it after a first frame: uint8 ``[F, H, W, 3]``.

    Args:
        method: in the backbone's transformer, of which it is taken out at the end.
    """
    example, device = {"source": case.source, "mask": case.mask, "first_frame": first_HWC[None]}, backbone.device
    config, dtype = _sampling(backbone, how), fast_precision()
    try:
        with on_device(device, backbone.text_encoder):
            text_BTD = backbone.encode_text([case.edited_prompt])
        with on_device(device, backbone.vae, backbone.image_encoder):
            batch = encode_example(backbone, method, example, text_BTD, SIZE).to(device)
            denoise = Denoiser(backbone.transformer, method, backbone.shift, backbone.vae_temporal, config)
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16-mixed"):
                latents = denoise(batch, 0)
            return np.stack(list(decode(backbone, latents.float(), len(case.source))))
    finally:
        method.uninstall()


def compare(backbone: Backbone, case: Case, how: Fits, folder: Path) -> dict[str, Scores]:
    """Scores of the fit, of the base without deltas, of naive LoRA without a mask, of copying, and of the ceiling."""
    nothing_kept = replace(case, mask=np.full_like(case.mask, 255))
    found = {"copy": scores(case, case.source), "ceiling": scores(case, _through(backbone, case.target))}
    for name, clip in (("base", case), ("lora_edit", case), ("naive", nothing_kept)):
        if name == "base":
            method = how.method()
            method.install(backbone.transformer)
        else:
            method = fit_stage(backbone, clip, {}, how, folder / name)
        found[name] = scores(case, edit_clip(backbone, method, clip, case.target[0], how))
    return found


def compare_second_frame(backbone: Backbone, case: Case, how: Fits, folder: Path) -> dict[str, Scores]:
    """Scores of the last third by the first frame alone, and with an edited frame at its end as well."""
    late = replace(case, target=case.target[LATE], changed=case.changed[LATE])
    first, second = folder / "first", folder / "second"
    method = fit_stage(backbone, case, {}, how, first)
    found = {"copy": _scored(late, case.source[LATE])}
    found["first frame"] = _scored(late, edit_clip(backbone, method, case, case.target[0], how)[LATE])
    method = fit_stage(backbone, case, {SECOND: case.target[SECOND]}, how, second, first / "adapter.safetensors")
    found["second frame"] = _scored(late, edit_clip(backbone, method, case, case.target[0], how)[LATE])
    return found


def scores(case: Case, made_FHWC: np.ndarray) -> Scores:
    """PSNR (dB) of the frames after the first, by region."""
    return region_psnr(made_FHWC[1:], case.target[1:], case.changed[1:])


def _scored(case: Case, made_FHWC: np.ndarray) -> Scores:
    return region_psnr(made_FHWC, case.target, case.changed)


def _through(backbone: Backbone, video_FHWC: np.ndarray) -> np.ndarray:
    """A video through the autoencoder: what no edit in its latents surpasses."""
    with on_device(backbone.device, backbone.vae):
        video_BCFHW = to_model(list(video_FHWC)).to(backbone.device)
        return from_model(backbone.decode_video(backbone.encode_video(video_BCFHW)).cpu())


def _sampling(backbone: Backbone, how: Fits) -> SamplingConfig:
    return SamplingConfig(steps=how.sampling, guidance=1.0, shift=backbone.shift)
