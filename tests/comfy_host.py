"""The few functions of ComfyUI that the nodes call and a few of its own nodes, in stand-ins that record."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from imvideoedit.video.reader import Clip


class Interrupted(Exception):
    """As ComfyUI's ``InterruptProcessingException``."""


class Comfy:
    """A ComfyUI on the CPU, in a folder.

    Attributes:
        interrupt: the flag that its Cancel button sets; the first that sees it takes it down.
        asked: how often it was asked whether the run is cancelled, in this run.
        cancel_at: sets the flag when it is asked for that time.
        progress: what its bars showed: values and totals.
        on_progress: called with each value.
        freed: how often its models were to leave the device.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.interrupt, self.asked, self.cancel_at, self.freed = root, False, 0, -1, 0
        self.progress: list[tuple[int, int]] = []
        self.on_progress: Callable[[int], None] = lambda value: None
        self.args = SimpleNamespace(disable_metadata=False)
        self.folders = {"diffusers": [str(root / "models/diffusers")]}
        for folder in ("models/diffusers", "models/imvideoedit", "input", "output", "custom_nodes"):
            (root / folder).mkdir(parents=True)

    def check(self) -> None:
        self.asked += 1
        if self.interrupt or self.asked == self.cancel_at:
            self.interrupt = False
            raise Interrupted

    def outputs(self) -> list[str]:
        """Files and folders of the output folder, as paths in it, also those that begin with a dot."""
        return sorted(str(path.relative_to(self.root / "output")) for path in (self.root / "output").rglob("*"))

    def _bar(self, total: int) -> SimpleNamespace:
        def update_absolute(value: int, total: int | None = None) -> None:
            self.progress.append((value, total))
            self.on_progress(value)

        return SimpleNamespace(update_absolute=update_absolute)

    def _free(self) -> None:
        self.freed += 1

    def _add(self, name: str, folder: str) -> None:
        places = self.folders.setdefault(name, [])
        if folder not in places:
            places.append(folder)

    def _files(self, name: str) -> list[str]:
        found = (path for place in self.folders[name] for path in Path(place).rglob("*"))
        return sorted(os.path.relpath(path, self.folders[name][0]) for path in found if path.is_file())

    def _full(self, name: str, file: str) -> str | None:
        return next((str(Path(place, file)) for place in self.folders[name] if Path(place, file).is_file()), None)

    def _save_path(self, prefix: str, root: str, width: int, height: int) -> tuple[str, str, int, str, str]:
        below, stem = os.path.split(prefix.replace("%width%", str(width)).replace("%height%", str(height)))
        folder = Path(root, below)
        folder.mkdir(parents=True, exist_ok=True)
        taken = [
            path.name.removeprefix(f"{stem}_")[:5] for path in folder.iterdir() if path.name.startswith(f"{stem}_")
        ]
        return str(folder), stem, max(map(int, taken), default=0) + 1, below, prefix

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the stand-ins where ``import`` finds them."""
        management = {
            "get_torch_device": lambda: torch.device("cpu"),
            "unload_all_models": self._free,
            "soft_empty_cache": lambda: None,
            "throw_exception_if_processing_interrupted": self.check,
        }
        paths = {
            "models_dir": str(self.root / "models"),
            "add_model_folder_path": self._add,
            "get_filename_list": self._files,
            "get_full_path": self._full,
            "get_folder_paths": lambda name: list(self.folders[name]),
            "get_output_directory": lambda: str(self.root / "output"),
            "get_save_image_path": self._save_path,
        }
        parts = {
            "comfy.model_management": management,
            "comfy.utils": {"ProgressBar": self._bar},
            "comfy.cli_args": {"args": self.args},
        }
        package = ModuleType("comfy")
        for name, values in ({"folder_paths": paths} | parts).items():
            module = ModuleType(name)
            vars(module).update(values)
            patch.setitem(sys.modules, name, module)
            if name in parts:
                setattr(package, name.removeprefix("comfy."), module)
        patch.setitem(sys.modules, "comfy", package)


def own_nodes(comfy: Comfy) -> dict[str, type]:
    """ComfyUI's nodes that open a video, by the names of their inputs and outputs; and one of any image or mask."""

    class LoadVideo:
        FUNCTION, RETURN_TYPES = "load", ("VIDEO",)

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"file": ([path.name for path in (comfy.root / "input").iterdir()], {})}}

        def load(self, file: str) -> tuple[Any]:
            return (SimpleNamespace(get_stream_source=lambda: str(comfy.root / "input" / file)),)

    class GetVideoComponents:
        FUNCTION, RETURN_TYPES = "split", ("IMAGE", "AUDIO", "FLOAT")

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"video": ("VIDEO", {})}}

        def split(self, video: Any) -> tuple[Any, ...]:
            frames = torch.stack([torch.from_numpy(frame) for frame in Clip(Path(video.get_stream_source()))])
            return frames / 255.0, None, 8.0

    class Tensors:
        """The tensor in a file, as an image and as a mask."""

        FUNCTION, RETURN_TYPES = "load", ("IMAGE", "MASK")

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"file": ("STRING", {})}}

        @classmethod
        def IS_CHANGED(cls, file: str) -> float:
            return Path(file).stat().st_mtime_ns

        def load(self, file: str) -> tuple[Any, Any]:
            tensor = torch.load(file)
            return tensor, tensor

    return {"LoadVideo": LoadVideo, "GetVideoComponents": GetVideoComponents, "Tensors": Tensors}
