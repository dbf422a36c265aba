"""Random, mostly small networks in the published file formats, to test everything without a download."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from imvideoedit.common.files import replacing
from imvideoedit.evaluation.weights.files import MARK, NETWORKS
from imvideoedit.evaluation.weights.networks import need

SIDE = 32  # pixels of the small CLIP models' images
WIDTH = 32  # of their features
WORDS = "a the of in on and make turn remove add red green blue yellow white black box ball fish snow night".split()


def write_tiny(folder: Path, seed: int = 0) -> None:
    """Write random weights for every network, and the file that marks them.

    Raises:
        UserError: timm, torchvision or pyiqa is not installed.
    """
    need("pyiqa")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text("random weights: values measured with them are meaningless\n")
        for network in ("clip_b32", "clip_l14", "pickscore"):
            _clip().save_pretrained(folder / network)
        for network in ("clip_b32", "clip_l14"):
            _tokenizer().save_pretrained(folder / network)
        for file, module in _checkpoints().items():
            with replacing(folder / file) as path:
                torch.save(module, path)


def _clip() -> CLIPModel:
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(WORDS) + 3, "max_position_embeddings": 77, "eos_token_id": 1, "bos_token_id": 0}
    vision = {**tower, "image_size": SIDE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<end>", "<unknown>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>", model_max_length=77
    )


def _checkpoints() -> dict[str, Any]:
    """File -> state dict."""
    timm = need("timm")
    from pyiqa.archs.musiq_arch import MUSIQ
    from torchvision.models import alexnet
    from torchvision.models.optical_flow import raft_large

    names = {network: [file.name for file in files] for network, files in NETWORKS.items()}
    dino = timm.create_model("vit_base_patch16_224", num_classes=0, embed_dim=64, depth=1, num_heads=1)
    musiq = MUSIQ(pretrained=False, num_class=1, hidden_size=64, mlp_dim=64, num_layers=1, num_heads=1)
    features = {f"features.{name}": value for name, value in alexnet(weights=None).features.state_dict().items()}
    channels = (64, 192, 384, 256, 256)
    heads = {f"lin{layer}.model.1.weight": torch.rand(1, width, 1, 1) for layer, width in enumerate(channels)}
    return {
        names["dino_b16"][0]: dino.state_dict(),
        names["musiq"][0]: musiq.state_dict(),
        names["raft"][0]: raft_large(weights=None).state_dict(),
        names["aesthetic"][0]: torch.nn.Linear(WIDTH, 1).state_dict(),
        names["lpips"][0]: features,
        names["lpips"][1]: heads,
    }
