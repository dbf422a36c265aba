"""The nano world's tokenizer: one token per word, as the vocabulary is closed."""

import itertools

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from imvideoedit.world import grammar, scenes

MAX_TOKENS = 64


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
