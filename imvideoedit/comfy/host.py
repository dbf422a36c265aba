"""What the nodes ask of ComfyUI: its device and memory, progress, cancelling, folders.

Its modules exist inside it only, so each function imports what it calls.
"""

import os.path
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ADAPTERS = "imvideoedit"  # of ComfyUI's model folders: models/imvideoedit, and what extra_model_paths.yaml adds to it
BASES = "diffusers"  # likewise
INDEX = "model_index.json"  # of a diffusers pipeline's folder


def device() -> "torch.device":
    """Where ComfyUI computes."""
    import comfy.model_management

    return comfy.model_management.get_torch_device()


def free_device() -> None:
    """Have ComfyUI's own models leave the device."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    empty_cache()


def empty_cache() -> None:
    """Give memory that is free, but kept for later, back to the device."""
    import comfy.model_management

    comfy.model_management.soft_empty_cache()


def check_cancelled() -> None:
    """Raise ComfyUI's own exception where the user has cancelled the run."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The bar on the node that works: called with passes done and passes in all."""

    def __init__(self) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(1)

    def __call__(self, done: int, total: int) -> None:
        check_cancelled()
        self._bar.update_absolute(done, total)


def adapter_names() -> list[str]:
    """Adapter files in ComfyUI's model folders, as paths below them."""
    import folder_paths

    folder_paths.add_model_folder_path(ADAPTERS, os.path.join(folder_paths.models_dir, ADAPTERS))
    return [name for name in folder_paths.get_filename_list(ADAPTERS) if name.endswith(".safetensors")]


def adapter_path(name: str) -> Path | None:
    """The file of one of :func:`adapter_names`; None where it is gone."""
    import folder_paths

    found = folder_paths.get_full_path(ADAPTERS, name)
    return Path(found) if found else None


def base_folders() -> dict[str, Path]:
    """Folders of diffusers pipelines in ComfyUI's model folders, by name; of two of one name the first."""
    import folder_paths

    found: dict[str, Path] = {}
    for place in folder_paths.get_folder_paths(BASES):
        for index in sorted(Path(place).glob(f"*/{INDEX}")):
            found.setdefault(index.parent.name, index.parent)
    return found


def output_path(prefix: str, width: int, height: int) -> tuple[Path, str]:
    """Where an output goes: its path without a suffix, which no file has yet, and its folder below ComfyUI's output.

    Args:
        prefix: of the name, as of ComfyUI's own nodes: it may name folders, and ``%width%``, ``%year%`` and the like.
    """
    import folder_paths

    root = folder_paths.get_output_directory()
    folder, stem, counter, below, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    return Path(folder) / f"{stem}_{counter:05}_", below


def keeps_workflows() -> bool:
    """Whether outputs hold the workflow that made them."""
    from comfy.cli_args import args

    return not args.disable_metadata
