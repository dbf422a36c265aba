"""A source and a method's inputs as the model takes them: latents, pixels at its size, text embeddings.

Shapes: B batch (one), C channels, F frames, H W pixels, T text tokens, D text width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import is_finite
from imvideoedit.data.sizes import fit
from imvideoedit.edit_batch import Input
from imvideoedit.editing.inputs import FrameSource, Sources, check_size, in_length, is_frame
from imvideoedit.editing.job_inputs import MASK
from imvideoedit.methods.base import Method
from imvideoedit.video.geometry import from_model, in_parts, pad_to_groups, resized, to_model
from imvideoedit.video.masks import feathered_frames, nearest
from imvideoedit.wan.backbone import Backbone

PART = 2  # latent frames encoded or decoded at a time


@dataclass(frozen=True)
class ConditionEncoder:
    """Encodes what lies on one source, or goes with it.

    Attributes:
        own: height and width of the source.
        size: those of the model.
    """

    backbone: Backbone
    own: tuple[int, int]
    size: tuple[int, int]

    def check_sizes(self, known: dict[str, Input], given: Sources) -> None:
        """See that each input is of its kind, and its first frame fits the source.

        Raises:
            UserError: one has no frame, or another aspect ratio.
            ValueError: a text is given for frames, or frames for a text.
        """
        for name, source in given.items():
            if isinstance(source, str) != (known[name].kind == "text"):
                raise ValueError(f"the input {name} is a {known[name].kind}, not {type(source).__name__}")
            if isinstance(source, str):
                continue
            first = next(iter(source()), None)
            if first is None:
                raise UserError(f"the input {name} has no frame")
            check_size(known[name], f"the input {name}", first.shape[:2], self.own)

    def latents(self, frames: Iterable[np.ndarray]) -> tuple[Tensor, int]:
        """Latents of a video, a few of its frames in memory at a time: float32 ``[1, C, F, H, W]``; and their number.

        Args:
            frames: uint8 ``[H, W, 3]`` of any size; the last one is repeated until the model's groups are complete.
        """
        count = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal count
            for frame_HWC in frames:
                count += 1
                yield frame_HWC

        parts = map(to_model, self._parts(resized(counted(), self.size)))
        return torch.cat(list(self.backbone.encode_parts(parts)), dim=2), count

    def conditions(self, declared: Iterable[Input], given: Sources, count: int) -> dict[str, Tensor]:
        """Images, videos and masks as their ``Input`` says, by name; with as many frames as the padded source.

        Args:
            declared: those that are given.
            count: frames of the source, without padding.

        Raises:
            UserError: a video or mask has another number of frames.
        """
        found = {}
        for each in declared:
            source = given[each.name]
            if not isinstance(source, str):
                found[each.name] = self._condition(each, source, count)
        mask = given.get(MASK)
        if MASK not in found and mask is not None and not isinstance(mask, str):
            for _ in in_length(MASK, mask(), count, still=True):  # its length shows before the model works
                pass
        return found

    def derived(
        self, method: Method, declared: Iterable[Input], given: Sources, open_frames: FrameSource, count: int
    ) -> dict[str, Tensor]:
        """What a method derives of source and inputs, by name, encoded as its ``Input`` says.

        Args:
            declared: the inputs that are given; texts among them are not used.
            open_frames: gives the source.
            count: its frames.
        """
        found, media = {}, [each for each in declared if each.kind != "text"]
        for each in method.derived:
            inputs = {one.name: self._at_own_size(one, given[one.name], count) for one in media}
            frames = iter(method.derive(each.name, open_frames(), inputs))
            if each.encoder == "clip":
                found[each.name] = self.backbone.encode_image(next(frames))
            else:
                found[each.name] = self.latents(frames)[0]
        return found

    def prompts(
        self,
        method: Method,
        texts: list[str],
        device: torch.device,
        declared: Iterable[Input],
        given: Sources,
        open_frames: FrameSource,
        count: int,
    ) -> Tensor:
        """Embeddings of texts ``[B, T, D]``; of the first alone, and what it is about, where the method has a reader.

        Args:
            device: of the reader, which leaves it afterwards; other arguments as :meth:`derived`.
        """
        if method.reader is None:
            return self.backbone.encode_text(texts)
        places = set(method.reader.places(count))
        frames = (frame_HWC for place, frame_HWC in enumerate(open_frames()) if place in places)
        images = {
            each.name: next(resized([self._fitted(each, next(iter(given[each.name]())))], self.size))  # type: ignore[operator]
            for each in declared
            if each.kind == "image"
        }
        with method.reader.on(device):
            return method.reader.read(texts[0], list(resized(frames, self.size)), count, images)[None]

    def texts(self, declared: Iterable[Input], given: Sources) -> dict[str, Tensor]:
        """Texts by name, each ``[1, T, D]``."""
        pairs = ((each.name, given[each.name]) for each in declared)
        return {name: self.backbone.encode_text([text]) for name, text in pairs if isinstance(text, str)}

    def shares(self, given: Sources, count: int, feather: float) -> Iterator[np.ndarray] | None:
        """The edit's share in each frame of the source by the mask, see ``feathered``; None without one."""
        mask = given.get(MASK)
        if mask is None or isinstance(mask, str):
            return None
        return feathered_frames(in_length(MASK, mask(), count, still=True), self.own, feather)

    def _condition(self, declared: Input, given: FrameSource, count: int) -> Tensor:
        if declared.kind == "image":
            frames: Iterable[np.ndarray] = [self._fitted(declared, next(iter(given())))]
        else:
            frames = in_length(declared.name, given(), count, still=declared.kind == "mask")
        if declared.encoder == "vae":
            return self.latents(frames)[0]
        if declared.kind == "mask":
            masks = (torch.from_numpy(nearest(mask_HW, self.size) > 0) for mask_HW in chain(*self._parts(frames)))
            return torch.stack(list(masks))[None, None].float()
        return torch.cat([to_model(part) for part in self._parts(resized(frames, self.size))], dim=2)

    def _at_own_size(self, declared: Input, given: Any, count: int) -> Iterable[np.ndarray]:
        """Frames of an input at the source's size; as many, unless it is an image."""
        if declared.kind == "image":
            return [fit(next(iter(given())), self.own)]
        frames = in_length(declared.name, given(), count, still=declared.kind == "mask")
        if declared.kind == "mask":
            return (nearest(mask_HW, self.own) for mask_HW in frames)
        return resized(frames, self.own)

    def _fitted(self, declared: Input, image_HWC: np.ndarray) -> np.ndarray:
        """Cropped as the model's frames; one of the video's is cropped as the source, and then resized like it."""
        return fit(image_HWC, self.own if is_frame(declared) else self.size)

    def _parts(self, frames: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Complete groups of frames: first one more."""
        group = self.backbone.vae_temporal
        parts = in_parts(frames, 1 + PART * group, PART * group)
        return (pad_to_groups(part, group, n == 0) for n, part in enumerate(parts))


def decode(backbone: Backbone, latents_BCFHW: Tensor, frames: int) -> Iterator[np.ndarray]:
    """The first ``frames`` of a video from its latents, a few in memory at a time: uint8 ``[H, W, 3]``.

    Raises:
        UserError: latents or frames are NaN or infinite, which as bytes would be black or noise.
    """
    _see_finite(latents_BCFHW, "latents")
    done = 0
    for part_BCFHW in backbone.decode_parts(torch.split(latents_BCFHW, PART, dim=2)):
        _see_finite(part_BCFHW, "frames")
        yield from from_model(part_BCFHW)[: frames - done]
        done += part_BCFHW.shape[2]


def _see_finite(values: Tensor, what: str) -> None:
    if not is_finite(values):
        raise UserError(
            f"the edit's {what} came out as NaN or infinite values; check the adapters and LoRAs and their weights, "
            "and the sampling settings"
        )
