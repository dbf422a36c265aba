"""Where the files of a backbone are: in the package, in a folder, or on the hub; and what its scheduler says."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from diffusers import ConfigMixin
from diffusers.schedulers.scheduling_utils import SCHEDULER_CONFIG_NAME

from imvideoedit.common.bundled import IMAGE_TO_VIDEO, WEIGHTS
from imvideoedit.common.errors import UserError

NANO_IMAGE_TO_VIDEO = "nano_image_to_video"  # the bundled one with further input channels
WAN_1_3B_HUB = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
WAN_1_3B_REVISION = "0fad780a534b6463e45facd96134c9f345acfa5b"
WAN_5B_HUB = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
WAN_14B_HUB = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
HUB_TIMEOUT = 10.0  # seconds
DEFAULT_SHIFT = 5.0


class _SchedulerConfig(ConfigMixin):
    config_name = SCHEDULER_CONFIG_NAME


def locate(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Where a backbone's files are: a folder and None, or a hub repository and its revision.

    Raises:
        UserError: no such folder, or a repository that is neither cached nor within reach.
    """
    if name in ("nano", NANO_IMAGE_TO_VIDEO):
        if not WEIGHTS.is_dir() or (name == NANO_IMAGE_TO_VIDEO and not IMAGE_TO_VIDEO.is_file()):
            raise UserError(f"the bundled nano weights are missing from {WEIGHTS}; reinstall imvideoedit")
        return str(WEIGHTS), None
    if name == "wan_1_3b":
        local = os.environ.get("IMVIDEOEDIT_WAN")
        if local and not Path(local).is_dir():
            raise UserError(
                f"backbone 'wan_1_3b' is to be in {local} by IMVIDEOEDIT_WAN, but that is no folder; "
                f"set it to one that holds {WAN_1_3B_HUB}"
            )
        if local:
            return local, None
        _reach_hub(WAN_1_3B_HUB, revision or WAN_1_3B_REVISION, name)
        return WAN_1_3B_HUB, revision or WAN_1_3B_REVISION
    if Path(name).is_dir():
        return name, None
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"backbone folder {name} does not exist; give nano, {NANO_IMAGE_TO_VIDEO}, wan_1_3b, a diffusers folder "
            "or a hub id"
        )
    _reach_hub(name, revision, name)
    return name, revision


def _reach_hub(repository: str, revision: str | None, name: str) -> None:
    """Raise a UserError at once where neither the hub's cache nor the hub has the files; loading retries for long."""
    cached = huggingface_hub.try_to_load_from_cache(repository, "transformer/config.json", revision=revision)
    if isinstance(cached, str):
        return
    try:
        huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # of the HTTP library, of the hub or of the system: the files are out of reach
        raise UserError(f"backbone {name!r} cannot be found on the hub: {error}; {remedy(name)}") from error


def remedy(name: str) -> str:
    """What to do when a backbone's files are missing or do not load."""
    if name == "wan_1_3b":
        return f"check the network, or download {WAN_1_3B_HUB} and set IMVIDEOEDIT_WAN to its folder"
    return "it must hold transformer/, vae/, text_encoder/, tokenizer/ and scheduler/ as diffusers' WanPipeline does"


def read_shift(source: dict[str, Any]) -> float:
    """Flow shift of a backbone's scheduler, or Wan's where it has none; ``source`` is where diffusers loads from."""
    try:
        config = _SchedulerConfig.load_config(**source, subfolder="scheduler")
    except OSError:
        return DEFAULT_SHIFT
    return shift_of(config)


def shift_of(config: Mapping[str, Any]) -> float:
    """Flow shift of a scheduler's config, or Wan's where it has none."""
    # UniPC, Wan's own, calls it flow_shift; the Euler scheduler calls it shift.
    return float(config.get("flow_shift") or config.get("shift") or DEFAULT_SHIFT)


def default_device(device: str | torch.device | None) -> torch.device:
    """The one asked for, else this process's GPU if there is one, else the CPU.

    Of several processes on a machine each has its own, by the local rank that torchrun, Lightning or Slurm gives it.
    """
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    ranks = (os.environ.get(name, "") for name in ("LOCAL_RANK", "SLURM_LOCALID"))
    rank = next((int(rank) for rank in ranks if rank.isdecimal()), 0)
    return torch.device("cuda", rank % torch.cuda.device_count())  # Slurm may show each process its own GPU alone


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
