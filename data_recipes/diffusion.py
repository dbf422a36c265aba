"""Images by diffusers: any text-to-image pipeline, and any that edits an image by a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_recipes.rows import Row
from data_recipes.synthesis import ImagePair, Painter
from imvideoedit.common.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class DiffusersPainter(Painter):
    """Generates an image of each source prompt, then edits it by the instruction.

    Rows of one size share a batch, each with a generator of its own seed. The batches of a shard depend on the shard
    alone, so that it can be repeated exactly.

    Args:
        text_to_image, image_edit: folders or hub ids of diffusers pipelines.
        revisions: of the two on the hub, by these names; the newest where missing.
        text_to_image_call, image_edit_call: arguments of each pipeline besides prompt, image, size and generators, as
            ``num_inference_steps``.
        edit_by: the text of a row that the edit follows: ``instruction`` or ``edited_prompt``.
        batch_size: rows in a batch.
        dtype: ``bfloat16``, ``float16`` or ``float32``.
        device: the GPU if there is one, else the CPU.
        offload: keep only the active part of a pipeline in GPU memory.

    Raises:
        UserError: a value is out of its range.
    """

    text_to_image: str
    image_edit: str
    revisions: Mapping[str, str] = field(default_factory=dict)
    text_to_image_call: Mapping[str, Any] = field(default_factory=dict)
    image_edit_call: Mapping[str, Any] = field(default_factory=dict)
    edit_by: str = "instruction"
    batch_size: int = 1
    dtype: str = "bfloat16"
    device: str | None = None
    offload: bool = False

    def __post_init__(self) -> None:
        if self.edit_by not in ("instruction", "edited_prompt"):
            raise UserError(f"painter.edit_by is {self.edit_by!r}; it must be instruction or edited_prompt")
        if self.dtype not in DTYPES:
            raise UserError(f"painter.dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        if self.batch_size < 1:
            raise UserError(f"painter.batch_size is {self.batch_size}; it must be at least 1")
        self._names = {"text_to_image": self.text_to_image, "image_edit": self.image_edit}
        self._calls = {"text_to_image": dict(self.text_to_image_call), "image_edit": dict(self.image_edit_call)}
        self._loaded: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": {}}

    @property
    def models(self) -> dict[str, str]:
        names = {name: "@".join(filter(None, [path, self.revisions.get(name)])) for name, path in self._names.items()}
        return {"source images": names["text_to_image"], "edited images": names["image_edit"]}

    def identity(self) -> Any:
        return [self._names, dict(self.revisions), self._calls, self.edit_by, self.batch_size, self.dtype]

    def paint(self, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[ImagePair | str]:
        """As ``Painter.paint``.

        Raises:
            UserError: a pipeline cannot be loaded, does not accept its arguments, or runs out of memory.
        """
        painted: list[ImagePair | str] = [""] * len(rows)
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, row in enumerate(rows):
            by_size.setdefault((row["height"], row["width"]), []).append(place)
        for size, places in sorted(by_size.items()):
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                pairs = self._batch([rows[i] for i in batch], [seeds[i] for i in batch], size)
                for place, pair in zip(batch, pairs, strict=True):
                    painted[place] = pair
        return painted

    def _batch(self, rows: list[Row], seeds: list[int], size: tuple[int, int]) -> list[ImagePair | str]:
        sources = self._run("text_to_image", [row["source_prompt"] for row in rows], seeds, size)
        targets = self._run("image_edit", [row[self.edit_by] for row in rows], seeds, size, sources)
        return [_pair(source, target, size) for source, target in zip(sources, targets, strict=True)]

    def _run(
        self, name: str, prompts: list[str], seeds: list[int], size: tuple[int, int], images: Sequence[Any] = ()
    ) -> list[Any]:
        """PIL images."""
        pipeline = self._pipeline(name)
        # On the CPU, so that a seed gives the same noise on every device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        call = {"height": size[0], "width": size[1], **({"image": list(images)} if images else {}), **self._calls[name]}
        try:
            with torch.inference_mode():
                return pipeline(prompt=prompts, generator=generators, **call).images
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{self._names[name]} runs out of memory for {len(prompts)} images of {size[1]}x{size[0]}; "
                "lower painter.batch_size, or set painter.offload=true"
            ) from error
        except TypeError as error:
            raise UserError(
                f"{self._names[name]} does not accept its arguments ({error}); check painter.{name}_call"
            ) from error

    def _pipeline(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def parts(self, name: str) -> dict[str, Any]:
        """Components that replace the pipeline's own ones in the folder; none, unless a subclass has some."""
        return {}

    def _load(self, name: str) -> Any:
        from diffusers import DiffusionPipeline

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            pipeline = DiffusionPipeline.from_pretrained(
                self._names[name],
                revision=self.revisions.get(name),
                torch_dtype=DTYPES[self.dtype],
                use_safetensors=True,
                trust_remote_code=False,
                **self.parts(name),
            )
        except Exception as error:  # from the hub, the file system or a library
            raise UserError(
                f"the pipeline {self._names[name]} cannot be loaded ({error}); check painter.{name} and the network"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        if self.offload:
            pipeline.enable_model_cpu_offload(device=device)
            return pipeline
        return pipeline.to(device)


def _pair(source: Image.Image, target: Image.Image, size: tuple[int, int]) -> ImagePair | str:
    arrays = [np.asarray(image.convert("RGB")) for image in (source, target)]
    for name, array in zip(("source", "target"), arrays, strict=True):
        if array.shape[:2] != size:
            return f"size: {name} is {array.shape[1]}x{array.shape[0]}, not {size[1]}x{size[0]}"
    return arrays[0], arrays[1]
