"""Fits of tiny clips on tiny random models."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imvideoedit.video.reader import write_video
from tests.conftest import tiny_transformer

FRAMES, SIZE = 9, (32, 48)
BOX = "box:10,6,20,14"


def image_to_video_folder(wan_folder: Path, folder: Path) -> Path:
    """A folder as ``wan_folder``, whose transformer takes noise, mask and video."""
    shutil.copytree(wan_folder, folder)
    shutil.rmtree(folder / "transformer")
    tiny_transformer(in_channels=12).save_pretrained(folder / "transformer")
    return folder


@dataclass(frozen=True)
class Clip:
    """Files of one clip."""

    folder: Path
    backbone: Path

    @property
    def file(self) -> Path:
        return self.folder / "clip.mp4"

    def image(self, name: str, size: tuple[int, int] = SIZE, seed: int = 1) -> Path:
        """An edited frame."""
        path = self.folder / name
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
        return path

    def command(self, out: Path, *more: object, mask: object = BOX, prompt: str | None = "a red ball") -> list[object]:
        """Arguments of a fit; of repeated options the last one counts."""
        own = [self.file, "--mask", mask, "--out", out, "--backbone", self.backbone, "--max-area", 512]
        text = [] if prompt is None else ["--prompt", prompt]
        edited = [] if "--edited" in more else ["--edited", f"0={self.image('first.png')}"]
        return [*own, *text, *edited, "--steps", 3, "--rank", 2, "--device", "cpu", *more]


def make_clip(folder: Path, backbone: Path) -> Clip:
    """A clip of noise, without loss and with a frame rate of film."""
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, *SIZE, 3), np.uint8)
    folder.mkdir(exist_ok=True)
    write_video(folder / "clip.mp4", frames, 24, codec="lossless")
    return Clip(folder, backbone)
