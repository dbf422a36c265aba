"""Pairs of clips by compositing: one foreground over two backgrounds gives a removal, an addition and a new background.

As MiVE's human-centric pairs (Sec. 5.1). A foreground has its own transparency, or a model's masks of a plain video.

    delete:     foreground over background 1  ->  background 1
    add:        background 1                  ->  foreground over background 1
    background: foreground over background 1  ->  foreground over background 2

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from data_recipes.clip_models import Masker
from data_recipes.clip_rows import Unreadable, clip_row, read_clip, written
from data_recipes.clip_sources import each
from data_recipes.rows import Row, digest
from data_recipes.stages import Stage
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import content_hash
from imvideoedit.data.sizes import Size, fit, make_buckets, nearest_bucket
from imvideoedit.video.kinds import VIDEOS
from imvideoedit.video.pictures import open_picture

KINDS = {"delete": "object_removal", "add": "object_addition", "background": "background_replacement"}
PICTURES = (".png", ".webp")  # that may hold transparency


@dataclass(frozen=True)
class Composites(Stage):
    """Foregrounds over backgrounds.

    Args:
        foregrounds: a folder. Each of its pictures with transparency, of its folders of such frames, and of its videos
            (by ``masker``) is one.
        backgrounds: a folder of videos, at least two.
        draws: how many pairs of backgrounds every foreground gets.
        masker: finds the foreground of a video; its masks are the transparency. ``words`` name it.

    Raises:
        UserError: nothing is there, there is a video without a masker, or a value is out of its range.
    """

    out: Path
    foregrounds: Path
    backgrounds: Path
    frames: int = 81
    max_area: int = 480 * 832
    multiple: int = 16
    draws: int = 1
    seed: int = 0
    per_shard: int = 5
    masker: Masker | None = None
    words: str = "person"
    name: ClassVar = "composites"
    inputs: ClassVar = {}

    def __post_init__(self) -> None:
        if self.frames < 5 or self.frames % 4 != 1 or min(self.per_shard, self.draws) < 1:
            raise UserError(
                f"composites.frames is {self.frames}, per_shard {self.per_shard} and draws {self.draws}; frames are "
                "4k + 1 and at least 5, the others at least 1"
            )
        found = self.files()
        if not found:
            raise UserError(f"{self.foregrounds} holds no foreground: pictures with transparency, folders of them")
        opaque = [path.name for path in found if path.suffix.lower() in VIDEOS and self.masker is None]
        if opaque:
            raise UserError(f"the foreground {opaque[0]} is a video, without transparency; give composites.masker")
        if len(self.scenes()) < 2:
            raise UserError(f"{self.backgrounds} holds {len(self.scenes())} videos; two backgrounds are the least")

    def files(self) -> list[Path]:
        """All foregrounds, by name."""
        kinds = (*PICTURES, *VIDEOS)
        return sorted(
            path for path in Path(self.foregrounds).iterdir() if path.is_dir() or path.suffix.lower() in kinds
        )

    def scenes(self) -> list[Path]:
        """All backgrounds, by name."""
        return sorted(path for path in Path(self.backgrounds).rglob("*") if path.suffix.lower() in VIDEOS)

    def shards(self) -> int:
        """How many shards they make."""
        return -(-len(self.files()) // self.per_shard)

    @property
    def models(self) -> dict[str, str]:
        """Names of the models, by their part."""
        return {} if self.masker is None else self.masker.models

    def identity(self, index: int, out: Path) -> Any:
        masker = None if self.masker is None else [self.masker.identity(), self.words]
        drawn = [[_hash(front), *map(content_hash, behind)] for front, behind in self._drawn(index)]
        return [drawn, self.frames, self.max_area, self.multiple, masker]

    def _drawn(self, index: int) -> list[tuple[Path, tuple[Path, Path]]]:
        """Each foreground of a shard with two backgrounds, as often as asked."""
        scenes, found = self.scenes(), []
        for front in self.files()[index * self.per_shard : (index + 1) * self.per_shard]:
            rng = np.random.default_rng([self.seed, int(digest(front.name), 16) % 2**32])
            for _ in range(self.draws):
                first, second = rng.choice(len(scenes), 2, replace=False)
                found.append((front, (scenes[first], scenes[second])))
        return found

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        rows = []
        for front, behind in self._drawn(index):
            names = {"object": front.name, "source": str(behind[0]), "target": str(behind[1])}
            scene = digest(_hash(front), *map(content_hash, behind))
            for kind, task in KINDS.items():
                rows.append(clip_row(id=digest(scene, kind), scene=scene, kind=kind, task=task, **names))
        return each(self._composed, rows)

    def _composed(self, row: Row) -> Row:
        """A row's clips, each made once for the rows that share it."""
        front = Path(self.foregrounds) / row["object"]
        behind = Path(row["source"]), Path(row["target"])
        sizes = make_buckets(self.max_area, self.multiple)
        base = [self.frames, self.max_area, self.multiple, [] if self.masker is None else self.masker.identity()]

        def background(place: int) -> np.ndarray:
            video = read_clip(behind[place].parent, behind[place].name, self.frames)
            size = nearest_bucket(read_clip(behind[0].parent, behind[0].name, 1).shape[1:3], sizes)
            return np.stack([fit(frame, size) for frame in video])

        def over(place: int) -> np.ndarray:
            video = background(place)
            return composed(*self._front(front, video.shape[1:3]), video)

        def clip(composite: bool, place: int) -> str:
            made: Callable[[int], np.ndarray] = over if composite else background
            key = digest(_hash(front) if composite else "", [content_hash(path) for path in behind], place, base)
            return written(self.out, "composite", key, lambda: made(place))

        source, target = {
            "delete": ((True, 0), (False, 0)),
            "add": ((False, 0), (True, 0)),
            "background": ((True, 0), (True, 1)),
        }[row["kind"]]
        return row | {"object": "", "source": clip(*source), "target": clip(*target)}

    def _front(self, path: Path, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Colours ``[F, H, W, 3]`` and transparency ``[F, H, W]`` of a foreground, uint8; a still has one frame."""
        if path.suffix.lower() in VIDEOS and not path.is_dir():
            assert self.masker is not None
            video = read_clip(path.parent, path.name, self.frames)
            alpha = self.masker.masks(video, self.words)
            if alpha is None:
                raise Unreadable(f"no {self.words} was found in {path.name}")
        else:
            files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            if path.is_dir() and len(files) < self.frames:
                raise Unreadable(f"{path.name} has {len(files)} frames, fewer than {self.frames}")
            rgba = [read_rgba(file) for file in files[: self.frames]]
            video, alpha = np.stack([each[..., :3] for each in rgba]), np.stack([each[..., 3] for each in rgba])
        return (
            np.stack([fit(frame, size) for frame in video]),
            np.stack([fit(mask[..., None].repeat(3, axis=2), size)[..., 0] for mask in alpha]),
        )


def read_rgba(path: Path) -> np.ndarray:
    """A picture with its transparency: uint8 ``[H, W, 4]``.

    Raises:
        Unreadable: it is damaged, or has no transparency.
    """
    try:
        with open_picture(path) as image:
            found = np.array(image.convert("RGBA"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(f"{path.name}: {error}") from error
    if (found[..., 3] == 255).all():
        raise Unreadable(f"{path.name} has no transparency")
    return found


def composed(colour_FHWC: np.ndarray, alpha_FHW: np.ndarray, behind_FHWC: np.ndarray) -> np.ndarray:
    """``alpha colour + (1 - alpha) behind``, uint8; a foreground of one frame stands in all."""
    share_FHW1 = alpha_FHW[..., None].astype(np.float32) / 255
    mixed = share_FHW1 * colour_FHWC + (1 - share_FHW1) * behind_FHWC
    return mixed.round().astype(np.uint8)


def _hash(path: Path) -> str:
    """Of a file's content, or of a folder's pictures."""
    if path.is_file():
        return content_hash(path)
    return digest(*[[file.name, content_hash(file)] for file in sorted(path.iterdir()) if file.is_file()])
