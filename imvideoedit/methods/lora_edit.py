"""LoRA-Edit: low-rank deltas of one clip on an image-to-video model, and edits that follow the frames that are given.

The model reads noise, a mask and the latents of the masked video. The deltas are fitted to one clip in two stages:

    1   the clip, its first frame given, what lies outside the mask given
    2   each edited frame alone, as a video of one frame: what lies outside the mask given, without a first frame

Then the edited first frame is given in place of the clip's own. The loss is that of the whole frame in both stages.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, I tokens of an image, D widths.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, repeat
from typing import Any, Literal

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import Velocity
from imvideoedit.methods.base import Method, what_it_reads
from imvideoedit.methods.block_lora import ATTENTION, FEED_FORWARD, MethodRotary, lora_of
from imvideoedit.methods.image_condition import condition_channels, masked_frames
from imvideoedit.wan.forward import arguments, embed, modulation, run_blocks, run_inside, unembed
from imvideoedit.wan.image_to_video import MASK_CHANNELS

MASKED = Input("masked_video", "video")
IMAGE_TOKENS = Input("image_tokens", "image", encoder="clip")
CHANNELS, ANCHOR = "channels", "anchor"  # of a window, in its conditions
MAPS = {"paper": ATTENTION, "release": ATTENTION + FEED_FORWARD}
"""Linear maps of a block that have deltas, by ``target``; those of the image's keys and values are in none."""


class LoraEdit(Method):
    """Edits of one clip by its mask and its edited first frame.

    In a batch, ``conditions`` holds the inputs, ``masked_video``, and for models that read them ``image_tokens``. A
    batch without ``first_frame`` has no frame that is given whole, as in the second stage.

    Args:
        rank: of the deltas, at least 1.
        target: ``paper`` for deltas on self- and cross-attention, ``release`` on the feed-forward layers, too.
        objective: of training.

    Raises:
        UserError: an argument is out of its range.
    """

    name = "lora_edit"
    inputs = (Input("mask", "mask"), Input("first_frame", "image", from_target=True))

    def __init__(
        self, rank: int = 16, target: Literal["paper", "release"] = "paper", objective: FlowMatching | None = None
    ) -> None:
        super().__init__(objective or FlowMatching(shift=1.0))
        if rank < 1 or target not in MAPS:
            raise UserError(
                f"method.rank is {rank} and method.target {target!r}; rank is at least 1, target {' or '.join(MAPS)}"
            )
        self.rank, self.target = rank, target

    def config(self) -> dict[str, Any]:
        return {"rank": self.rank, "target": self.target}

    def check_base(self, transformer: WanTransformer3DModel) -> None:
        own: Any = transformer.config
        if own.in_channels != 2 * own.out_channels + MASK_CHANNELS:
            raise UserError(
                f"lora_edit takes an image-to-video model of {2 * own.out_channels + MASK_CHANNELS} input channels "
                f"(noise, mask, video); this one has {what_it_reads(own)}; give another, such as nano_image_to_video"
            )

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        self.lora = lora_of(transformer, MAPS[self.target], self.rank, dtype)

    @property
    def derived(self) -> tuple[Input, ...]:
        """The masked video, and tokens of the first frame where the model has layers for them."""
        transformer: Any = self.transformer
        takes_tokens = transformer is not None and transformer.config.image_dim is not None
        return (MASKED, IMAGE_TOKENS) if takes_tokens else (MASKED,)

    def remove(self, transformer: WanTransformer3DModel) -> None:
        blocks: list[Any] = list(self.lora)
        for block in blocks:
            block.remove()

    def shard_units(self) -> Sequence[nn.Module]:
        blocks: list[Any] = list(self.lora)
        return [delta for block in blocks for delta in block.deltas.values()]

    def working_bytes(self, tokens: int) -> int:
        """The channels beside the noise."""
        transformer: Any = self.transformer
        own = transformer.config
        height, width = own.patch_size[1:]
        return 4 * tokens * own.patch_size[0] * height * width * (own.in_channels - own.out_channels)

    # Pixels before the autoencoder.

    def derive(
        self, name: str, source: Iterable[np.ndarray], inputs: Mapping[str, Iterable[np.ndarray]]
    ) -> Iterator[np.ndarray]:
        first = next(iter(inputs["first_frame"])) if "first_frame" in inputs else None
        frames = masked_frames(source, inputs["mask"], first)
        return islice(frames, 1) if name == IMAGE_TOKENS.name else frames

    def transform(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Add what is derived of source, mask and, where there is one, first frame."""
        source_FHWC, mask_FHW = example["source"], example["mask"]
        masks = repeat(mask_FHW[0], len(source_FHWC)) if len(mask_FHW) == 1 else mask_FHW
        inputs = {**example, "mask": masks}
        return example | {
            each.name: np.stack(list(self.derive(each.name, source_FHWC, inputs))) for each in self.derived
        }

    # Sampling.

    def window(self, batch: EditBatch, frames: slice, group: int) -> EditBatch:
        """The whole video's channels are cut; a window that does not begin the video is led by its first frame.

        Of such a window the mask alone would lack frames of its first latent frame.
        """
        own, conditions = super().window(batch, frames, group), {}
        whole_BCFHW = _channels(batch)
        conditions[CHANNELS] = whole_BCFHW[:, :, frames]
        if frames.start > 0:
            first_BCFHW = whole_BCFHW[:, :, :1]
            noise = torch.randn(first_BCFHW[:, MASK_CHANNELS:].shape, generator=torch.Generator().manual_seed(0))
            conditions[ANCHOR] = torch.cat([noise.to(first_BCFHW), first_BCFHW], dim=1)
        return replace(own, conditions={**own.conditions, **conditions})

    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any = None) -> Velocity:
        channels, anchor = _channels(batch), batch.conditions.get(ANCHOR)
        tokens = batch.conditions.get(IMAGE_TOKENS.name)

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            both = torch.cat([x_BCFHW, channels.to(x_BCFHW)], dim=1)
            if anchor is not None:
                both = torch.cat([_led(anchor.to(both), sigma_B), both], dim=2)
            taken = arguments(transformer, both, sigma_B, batch.text_BTD)
            v_BCFHW = run_inside(transformer, partial(self._run, tokens), *taken).to(x_BCFHW.dtype)
            return v_BCFHW if anchor is None else v_BCFHW[:, :, anchor.shape[2] :]

        return velocity

    def _run(
        self,
        image_BID: Tensor | None,
        transformer: WanTransformer3DModel,
        x_BCFHW: Tensor,
        timestep_B: Tensor,
        text_BTD: Tensor,
    ) -> Tensor:
        image_BID = None if image_BID is None else image_BID.to(text_BTD.dtype)
        time_BD, rows, text_BTD = modulation(transformer, timestep_B, text_BTD, image_BID)
        rotary = MethodRotary.of(transformer.rope(x_BCFHW))
        hidden_BLD = run_blocks(transformer, embed(transformer, x_BCFHW), text_BTD, rows, rotary)
        return unembed(transformer, hidden_BLD, time_BD, x_BCFHW.shape)

    def branches(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any) -> dict[str, Velocity]:
        """With and without text; the model has no pass without the video."""
        named: dict[str, Velocity] = {"edit": self.velocity(transformer, batch, known)}
        if batch.empty_TD is not None:
            named["without_text"] = self.velocity(transformer, batch.without_text(), known)
        return named


def _channels(batch: EditBatch) -> Tensor:
    """Mask and video beside the noise, ``[B, 4 + C, F, H, W]``; a window has its part of the whole video's."""
    given = batch.conditions
    if CHANNELS in given:
        return given[CHANNELS]
    return condition_channels(given["mask"], given[MASKED.name], given.get("first_frame"))


def _led(anchor_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The video's first frame at a noise level, with the channels that say that it is given."""
    channels = (anchor_BCFHW.shape[1] - MASK_CHANNELS) // 2
    noise, beside = anchor_BCFHW[:, :channels], anchor_BCFHW[:, channels:]
    return torch.cat([FlowMatching.path(beside[:, MASK_CHANNELS:], noise, sigma_B).x_BCFHW, beside], dim=1)
