"""``python -m imvideoedit.nano.pretrain``: train the nano backbones.

``task=text_to_video``: from scratch, the autoencoder first, then text-to-video on images and videos. The result is a
diffusers ``WanPipeline`` folder in half precision, with a model card. ``task=image_to_video``: what makes it an
image-to-video model, see ``fit_image_to_video``. Each stage writes checkpoints under ``out``, from which
``resume=true`` continues.
"""

import copy
import json
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from transformers import UMT5Config, UMT5EncoderModel

from imvideoedit.common.bundled import IMAGE_TO_VIDEO
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing_folder, sync
from imvideoedit.common.hydra_command import command
from imvideoedit.common.json_file import write_json
from imvideoedit.nano.autoencoder import NanoAutoencoder
from imvideoedit.nano.card import write_card
from imvideoedit.nano.fit_autoencoder import AutoencoderFit, fit_start, fit_statistics, round_trip_psnr
from imvideoedit.nano.fit_image_to_video import ImageToVideoFit
from imvideoedit.nano.fit_text_to_video import TextToVideoFit
from imvideoedit.nano.quality import generator, measure
from imvideoedit.nano.scene_pools import ScenePool
from imvideoedit.nano.text import build_tokenizer
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.image_to_video import save_change, widen


def build_backbone(cfg: DictConfig, autoencoder: NanoAutoencoder) -> Backbone:
    """A backbone of the configured size with a randomly initialised transformer and text encoder."""
    tokenizer = build_tokenizer()
    transformer = WanTransformer3DModel(
        in_channels=autoencoder.config.z_dim,
        out_channels=autoencoder.config.z_dim,
        text_dim=cfg.text_encoder.d_model,
        **cfg.transformer.model,
    )
    text_config = UMT5Config(vocab_size=len(tokenizer), dropout_rate=0.0, **cfg.text_encoder)
    text_encoder = UMT5EncoderModel(text_config)
    return Backbone("nano", None, transformer, autoencoder, text_encoder, tokenizer, cfg.transformer.shift)


def fit_stage(
    module: lightning.LightningModule, name: str, steps: int | None, cfg: DictConfig, callbacks=(), max_time=None
) -> float:
    """Train one stage with checkpoints, until its steps or its time are over; returns the seconds of this run."""
    folder = Path(cfg.out) / name
    last = folder / "last.ckpt"
    saver = ModelCheckpoint(folder, save_last=True, save_top_k=0, every_n_train_steps=cfg.checkpoint_every)
    trainer = lightning.Trainer(
        max_steps=-1 if steps is None else steps,
        max_time=max_time,
        accelerator=cfg.device,
        devices=cfg.devices,
        strategy="ddp" if cfg.devices > 1 else "auto",
        precision=cfg.precision,
        gradient_clip_val=1.0,
        callbacks=[saver, RichProgressBar(), *callbacks],
        logger=CSVLogger(folder, name="log", version=""),
        log_every_n_steps=20,
        enable_model_summary=False,
    )
    if cfg.resume and not last.is_file():
        print(f"{name}: no checkpoint in {folder}, starting from scratch")
    began = time.perf_counter()
    trainer.fit(module, ckpt_path=last if cfg.resume and last.is_file() else None, weights_only=True)
    return time.perf_counter() - began


def save(backbone: Backbone, folder: Path) -> None:
    """Write the diffusers folder in half precision, besides what else is in it, such as the stages' checkpoints.

    It is taken for a backbone, old or new, only while all of it is there: the transformer's config goes first and comes
    last.
    """
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=backbone.shift, num_train_timesteps=1000
    )
    parts: dict[str, Any] = {
        "transformer": backbone.transformer,
        "vae": backbone.vae,
        "text_encoder": backbone.text_encoder,
    }
    halves = {name: copy.deepcopy(part).half() for name, part in parts.items()}
    pipeline = WanPipeline(tokenizer=backbone.tokenizer, scheduler=scheduler, **halves)
    with replacing_folder(folder / ".whole") as whole:
        pipeline.save_pretrained(whole, safe_serialization=True)
    whole = folder / ".whole"
    last = whole / "transformer/config.json"
    (folder / "transformer/config.json").unlink(missing_ok=True)
    for path in (*(each for each in whole.rglob("*") if each.is_file() and each != last), last):
        place = folder / path.relative_to(whole)
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
        sync(place.parent)
    shutil.rmtree(whole)


def pretrain(cfg: DictConfig) -> None:
    """Run the configured task."""
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but there is no GPU; use device=cpu")
    if cfg.task not in TASKS:
        raise UserError(f"task is {cfg.task!r}; choose {' or '.join(TASKS)}")
    torch.set_num_threads(cfg.threads)
    lightning.seed_everything(cfg.seed, verbose=False)
    TASKS[cfg.task](cfg)


def text_to_video(cfg: DictConfig) -> None:
    """Both stages from scratch, then measure and write the folder."""
    asked = cfg.transformer
    if asked.steps is None and asked.max_time is None:
        raise UserError("pretraining has no end; set transformer.steps, or transformer.max_time such as 00:00:10:00")
    pools = [ScenePool(**pool) for pool in asked.pools.values() if pool is not None]
    if not pools:
        raise UserError("there are no transformer.pools to train on; keep one of them")
    seconds: dict[str, float] = {}
    autoencoder = _autoencoder(cfg, seconds)
    backbone = build_backbone(cfg, autoencoder)
    average = EMAWeightAveraging(decay=asked.ema_decay)
    scenes = Path(cfg.scenes or Path(cfg.out) / "scenes")
    video_stage = TextToVideoFit(backbone, asked.steps, asked.lr, pools, scenes, cfg.seed, asked.compile)
    seconds["transformer"] = fit_stage(video_stage, "transformer", asked.steps, cfg, [average], asked.max_time)
    video_stage.requires_grad_(False).eval()
    if video_stage.global_rank == 0:
        finish(backbone, cfg, seconds, video_stage.trainer.global_step)


def image_to_video(cfg: DictConfig) -> None:
    """Fit the widened transformer of a text-to-video backbone, and write what changed and how it was made."""
    own = cfg.image_to_video
    backbone = load_backbone(own.base, device="cpu")
    widen(backbone.transformer)
    shapes = [tuple(shape) for shape in own.shapes]
    stage = ImageToVideoFit(backbone, own.steps, own.lr, shapes, cfg.seed, own.rank)
    seconds = fit_stage(stage, "image_to_video", own.steps, cfg)
    if stage.global_rank == 0:
        stage.merge()
        start = load_backbone(own.base, device="cpu", parts=()).transformer
        widen(start)
        save_change(start, backbone.transformer, Path(cfg.out) / IMAGE_TO_VIDEO.name)
        how = {name: cfg[name] for name in ("seed", "precision", "devices", "threads")}
        report: dict[str, Any] = {"settings": OmegaConf.to_container(own), **how, "seconds": seconds}
        write_json(Path(cfg.out) / IMAGE_TO_VIDEO.with_suffix(".json").name, report | {"machine": _machine()}, indent=1)


TASKS = {"text_to_video": text_to_video, "image_to_video": image_to_video}


def _autoencoder(cfg: DictConfig, seconds: dict[str, float]) -> NanoAutoencoder:
    """The trained autoencoder, or that of the folder ``take_from``; frozen."""
    if cfg.autoencoder.take_from:
        loaded: Any = load_backbone(cfg.autoencoder.take_from, device="cpu", parts=("vae",)).vae
        settings = {key: value for key, value in loaded.config.items() if not key.startswith("_")}  # without its path
        copied = NanoAutoencoder(**settings)
        copied.load_state_dict(loaded.state_dict())
        return copied.requires_grad_(False).eval()
    autoencoder = NanoAutoencoder(**cfg.autoencoder.model)
    fit_start(autoencoder, cfg.seed, cfg.autoencoder.clips)
    asked = cfg.autoencoder
    shapes = [tuple(shape) for shape in asked.shapes]
    stage = AutoencoderFit(autoencoder, asked.steps, asked.lr, shapes, seed=cfg.seed)
    seconds["autoencoder"] = fit_stage(stage, "autoencoder", asked.steps, cfg)
    autoencoder.requires_grad_(False).eval()
    fit_statistics(autoencoder, cfg.seed, 2 * cfg.autoencoder.clips // 3)
    return autoencoder


def finish(backbone: Backbone, cfg: DictConfig, seconds: dict[str, float], steps: int) -> None:
    """Measure the frozen backbone, write its folder and card, and print the quality."""
    vae: Any = backbone.vae
    torch.set_num_threads(cfg.threads * cfg.devices)
    trips = {frames: round_trip_psnr(vae, frames, clips=cfg.measure.clips) for frames in (1, 17, 49)}
    quality: dict[str, Any] = {f"round_trip_psnr_{frames}f": round(psnr, 2) for frames, psnr in trips.items()}
    draw = generator(backbone, cfg.measure.steps, cfg.measure.guidance)
    quality["text_to_video"] = measure(draw, cfg.measure.samples)
    save(backbone, Path(cfg.out))
    config = OmegaConf.to_container(cfg)
    report = {"config": config, "quality": quality, "seconds": seconds, "steps": steps, "machine": _machine()}
    write_card(Path(cfg.out), report)
    print(json.dumps(quality, indent=2))


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return f"{platform.machine()}, {device}, torch {torch.__version__}"


main = command("pretrain", pretrain)


if __name__ == "__main__":
    main()
