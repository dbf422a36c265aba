"""Texts and images as Wan's transformers read them, as diffusers' pipelines encode them.

Shapes: B batch, H W pixels, I image tokens, T text tokens, D width.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from imvideoedit.common.errors import UserError


def encode_text(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> Tensor:
    """Text embeddings ``[B, T, D]``, see :meth:`imvideoedit.wan.backbone.Backbone.encode_text`."""
    # Imported late: the pipeline pulls in much that only its few lines of text cleaning are wanted from.
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    length = min(tokenizer.model_max_length, 512)
    tokens = tokenizer(
        [prompt_clean(prompt) for prompt in prompts],
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(encoder.device)
    text_BTD = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return text_BTD * tokens.attention_mask[..., None].to(text_BTD.dtype)


class ImageEncoder(nn.Module):
    """The image encoder of an image-to-video model that reads an image's tokens (Wan2.1 I2V).

    Args:
        vision, processor: transformers' ``CLIPVisionModel`` and ``CLIPImageProcessor`` of the folder's
            ``image_encoder`` and ``image_processor``.
    """

    def __init__(self, vision: Any, processor: Any) -> None:
        super().__init__()
        self.vision, self.processor = vision, processor

    @classmethod
    def load(cls, name: str, source: dict[str, Any], dtype: torch.dtype) -> "ImageEncoder":
        """That of a backbone.

        Args:
            name: of the backbone, for the error.
            source: where diffusers loads from.

        Raises:
            UserError: it has none.
        """
        # Imported late: without torchvision the processor's import alone prints a warning.
        from transformers import CLIPImageProcessor, CLIPVisionModel

        try:
            vision = CLIPVisionModel.from_pretrained(**source, subfolder="image_encoder", dtype=dtype)
            return cls(vision, CLIPImageProcessor.from_pretrained(**source, subfolder="image_processor"))
        except OSError as error:
            raise UserError(
                f"backbone {name!r} reads an image's tokens, but its image_encoder/ or image_processor/ does not load: "
                f"{' '.join(str(error).split())}; add both as diffusers' WanImageToVideoPipeline saves them"
            ) from error

    def forward(self, image_HWC: np.ndarray) -> Tensor:
        """Tokens ``[1, I, D]`` of an image, uint8 ``[H, W, 3]``: the last layer's input."""
        like = next(self.vision.parameters())
        pixels = self.processor(images=image_HWC, return_tensors="pt").pixel_values
        return self.vision(pixels.to(like.device, like.dtype), output_hidden_states=True).hidden_states[-2]
