"""The nano world's tokenizers: one token per word, as the vocabulary is closed."""

import itertools

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from imvideoedit.world import grammar, scenes

MAX_TOKENS = 64
START, END = "<|im_start|>", "<|im_end|>"
MARKS = (START, END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")  # Qwen's own
TOLD = "user assistant seconds describe thing one two < > ."  # besides the world's words: turns, times, who is meant


def words() -> list[str]:
    """Every word of the language, in a fixed order."""
    vocabularies: list = [
        scenes.OBJECT_COLORS, scenes.BACKGROUND_COLORS, scenes.PATTERNS, scenes.KINDS, scenes.MATERIALS,
        grammar.STATE_WORDS.values(), scenes.SIZES, scenes.MOTIONS, scenes.LOCATIONS, scenes.STYLES,
        scenes.TEMPERATURES, scenes.DIRECTIONS, scenes.CAMERAS, scenes.VIEWS, grammar.VIEW_INSTRUCTIONS.values(),
        ["a an the at with no of , style view camera background light from"],
        ["turn make render it video image into in change replace to add remove give plain again"],
    ]  # fmt: skip
    return sorted({word for phrase in itertools.chain(*vocabularies) for word in phrase.split()})


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with UMT5's special tokens; unknown words share one token."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )


def build_vlm_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with the marks of Qwen3-VL, for a tiny one; unknown words share one token."""
    digits = [str(number) for number in range(10)]
    known = dict.fromkeys(["<pad>", "<unk>", *MARKS, *TOLD.split(), *digits, *words()])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token=END, padding_side="right"
    )
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return made
