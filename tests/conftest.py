"""Tiny random models with the real classes: a transformer, and a whole diffusers folder to load."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.pipeline import EditPipeline

# Nothing here may reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)  # tiny tensors gain nothing by more, and several processes would wait for each other's

TINY_TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}
LONGEST = (
    *("trainers", "resume", "train", "app", "app_inputs", "edit", "run_jobs", "batches", "nano_pretrain"),
    *("recipe_models", "data_forms", "study_page", "recipe_review"),
)
WORDS = "a red blue ball cube rolls on the sand snow at night".split()


def tiny_transformer(seed: int = 0, **config) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(**(TINY_TRANSFORMER | config)).eval()


def tiny_batch(batch: int = 2, frames: int = 3, height: int = 4, width: int = 6, seed: int = 1) -> EditBatch:
    generator = torch.Generator().manual_seed(seed)
    source, target = torch.randn(2, batch, 4, frames, height, width, generator=generator)
    return EditBatch(source, target, torch.randn(batch, 5, 16, generator=generator))


def awaken(module: torch.nn.Module, seed: int = 2) -> None:
    """Give every weight a random push, so that nothing is at a zero that hides the rest."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: a process for each core that this one may use, but few, as each imports the libraries."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of fast tests first; then those that take long, the longest first: no core waits for another at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    longest = {f"test_{name}.py": place for place, name in enumerate(LONGEST, start=-len(LONGEST))}
    items.sort(key=lambda item: (item.path in slow, longest.get(item.path.name, 0)))


def pytest_collection_finish() -> None:
    """What the libraries have made is kept to the end: no collection need look at it again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here may read or change the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMVIDEOEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def transformer() -> WanTransformer3DModel:
    return tiny_transformer()


@pytest.fixture
def batch() -> EditBatch:
    return tiny_batch()


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers WanPipeline folder whose parts are tiny and random."""
    folder = tmp_path_factory.mktemp("wan")
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )
    encoder = text_encoder()
    WanPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=encoder,
        vae=vae.eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=tiny_transformer(),
    ).save_pretrained(folder)
    return folder


def text_encoder() -> UMT5EncoderModel:
    """A tiny random one, of the width of ``TINY_TRANSFORMER``'s texts."""
    sizes = {"vocab_size": len(WORDS) + 3, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return UMT5EncoderModel(UMT5Config(**sizes)).eval()


def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=12
    )


@pytest.fixture(scope="session")
def bundled_pipeline() -> EditPipeline:
    """The nano backbone and adapter of the package."""
    return EditPipeline.from_pretrained(device="cpu")
