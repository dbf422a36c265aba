"""Qwen-Image and Qwen-Image-Edit as diffusers folders: the real pipeline classes with tiny random parts."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BatchFeature,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
)

from data_recipes.diffusion import DiffusersPainter

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>"]
PAD = "<|image_pad|>"


def tokenizer() -> Qwen2Tokenizer:
    """One token a byte, and Qwen's marks."""
    vocabulary = {character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    return made


def text_encoder(words: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """A vision-language model 16 channels wide."""
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
            "vocab_size": len(words),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [1],
        },
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


class PictureProcessor(ProcessorMixin):
    """What Qwen-Image-Edit asks of Qwen2VLProcessor, which cannot be made where torchvision is not installed."""

    def __init__(self, image_processor: Qwen2VLImageProcessorPil, words: Qwen2Tokenizer) -> None:
        self.image_processor, self.tokenizer = image_processor, words

    def __call__(self, text: list[str], images: list[Any], padding: bool, return_tensors: str) -> BatchFeature:
        pictures = self.image_processor(images=images, return_tensors=return_tensors)
        counts = (pictures["image_grid_thw"].prod(-1) // self.image_processor.merge_size**2).tolist()
        marked = [line.replace(PAD, PAD * count) for line, count in zip(text, counts, strict=True)]
        return BatchFeature({**self.tokenizer(marked, padding=padding, return_tensors=return_tensors), **pictures})

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Its parts are saved one by one."""


class Painter(DiffusersPainter):
    """As it is, but for the part that needs torchvision."""

    def parts(self, name: str) -> dict[str, Any]:
        folder = Path(self._names[name]) / "processor"
        if not folder.is_dir():
            return {}
        words = Qwen2Tokenizer.from_pretrained(folder)
        return {"processor": PictureProcessor(Qwen2VLImageProcessorPil.from_pretrained(folder), words)}


def save(folder: Path) -> tuple[str, str]:
    """Write both pipelines; returns their folders."""
    torch.manual_seed(0)
    words = tokenizer()
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": AutoencoderKLQwenImage(
            base_dim=2,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 16,
            latents_std=[1.0] * 16,
        ).eval(),
        "text_encoder": text_encoder(words),
        "tokenizer": words,
        "transformer": QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            guidance_embeds=False,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
    }
    QwenImagePipeline(**parts).save_pretrained(folder / "image")
    pictures = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=56 * 56)
    edit = folder / "edit"
    QwenImageEditPipeline(**parts, processor=PictureProcessor(pictures, words)).save_pretrained(edit)
    for part in (pictures, words):
        part.save_pretrained(edit / "processor")
    # As a folder of the real model names it.
    index = json.loads((edit / "model_index.json").read_text())
    (edit / "model_index.json").write_text(json.dumps(index | {"processor": ["transformers", "Qwen2VLProcessor"]}))
    return str(folder / "image"), str(edit)


if __name__ == "__main__":
    print(save(Path(sys.argv[1])))
