"""What a LoRA's metadata say of its scale: alpha, where it is not among the tensors, and rank-stabilised scaling.

diffusers keeps PEFT's config under ``lora_adapter_metadata``, finetrainers under ``lora_config``, PEFT in a file next
to the weights; kohya's scripts and musubi keep ``ss_network_alpha``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json, read_json

CONFIGS = ("lora_adapter_metadata", "lora_config")
ALPHAS = ("ss_network_alpha", "network_alpha", "lora_alpha", "alpha")
BESIDE = {"adapter_model.safetensors": "adapter_config.json"}  # as PEFT saves
_DESCRIPTIVE = re.compile(r"format$|ss_|sshs_|modelspec\.|r$|rank$|network_dim$|lora_rank$|software$|version$|name$")
# Entries of PEFT's config that say nothing, or nothing that the tensors do not say, of what a trained LoRA adds.
_SILENT = re.compile(
    "r$|lora_alpha$|rank_pattern$|alpha_pattern$|use_rslora$|peft_type$|task_type$|peft_version$|auto_mapping$|revision$|"
    "base_model_name_or_path$|inference_mode$|target_modules$|exclude_modules$|target_parameters$|modules_to_save$|"
    "lora_dropout$|bias$|lora_bias$|init_lora_weights$|layers_to_transform$|layers_pattern$|runtime_config$|"
    "ensure_weight_tying$|(?:loftq|eva|corda|megatron)_"
)
_CHANGING = ("use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "layer_replication", "trainable_token_indices")


@dataclass(frozen=True)
class Scale:
    """How strongly each pair of a LoRA counts, as its metadata say.

    Attributes:
        alpha: of all pairs; None where nothing is said, and a pair then counts as it is.
        patterns: alphas of modules whose name ends so, or matches so.
        stabilised: alpha is divided by the square root of the rank.
        alone: the metadata are the only place for alphas, so that one among the tensors must agree.
        unused: entries of the metadata that are not known.
    """

    alpha: float | None = None
    patterns: Mapping[str, float] = field(default_factory=dict)
    stabilised: bool = False
    alone: bool = False
    unused: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is said, in short; empty where nothing is."""
        said = {"alpha": self.alpha, **self.patterns} if self.patterns or self.alpha is not None else {}
        words = [f"{key} {value:g}" for key, value in said.items() if value is not None]
        return ", ".join(words + ["rank-stabilised"] * self.stabilised)

    def of(self, place: str, rank: int, own: float | None, path: Path | str) -> float:
        """The factor of a pair.

        Args:
            own: alpha among the tensors.

        Raises:
            UserError: there are two alphas that differ.
        """
        alpha = next((value for key, value in self.patterns.items() if _matches(key, place)), self.alpha)
        if own is not None and self.alone and alpha is not None and own != alpha:
            raise UserError(f"{path} has alpha {own:g} for {place}, but {alpha:g} in its metadata; remove one of them")
        alpha = own if own is not None else alpha
        if alpha == 0:
            raise UserError(f"{path} has alpha 0 for {place}, so it adds nothing there; {_FIX}")
        return 1.0 if alpha is None else alpha / (rank**0.5 if self.stabilised else rank)


def read_scale(path: Path | str, metadata: Mapping[str, str]) -> Scale:
    """The scale that metadata say.

    Raises:
        UserError: they are damaged, contradict each other, or ask for what only another library does.
    """
    configs = {key: parse_json(metadata[key], f"{path}, {key}", fix=_FIX) for key in CONFIGS if key in metadata}
    beside = Path(path).with_name(BESIDE.get(Path(path).name, "")) if Path(path).name in BESIDE else None
    if beside is not None and beside.is_file():
        configs[beside.name] = read_json(beside, fix=_FIX)
    if len(configs) > 1:
        raise UserError(f"{path} has both {' and '.join(configs)}; {_FIX}")
    unused = [key for key in metadata if key not in (*CONFIGS, *ALPHAS) and not _DESCRIPTIVE.match(key)]
    given = {key: _number(metadata[key], f"{path}, {key}") for key in ALPHAS if metadata.get(key) not in (None, "None")}
    if len(set(given.values())) > 1:
        raise UserError(f"{path} has {' and '.join(f'{key} {value:g}' for key, value in given.items())}; {_FIX}")
    plain = Scale(next(iter(given.values()), None))
    for name, config in configs.items():
        own = {key.removeprefix("transformer."): value for key, value in config.items()}
        unused += [f"{name}.{key}" for key, value in own.items() if value and not _SILENT.match(key)]
        scale = _of_config(own, f"{path}, {name}")
        if plain.alpha is not None and scale.alpha != plain.alpha:
            raise UserError(f"{path} has two alphas, {plain.alpha:g} and that of {name}; {_FIX}")
        plain = scale
    return replace(plain, unused=tuple(unused))


_FIX = "export the LoRA again with the library that trained it"


def _of_config(config: Mapping[str, Any], where: str) -> Scale:
    for key in _CHANGING:
        if config.get(key):
            raise UserError(f"{where} asks for {key}, which cannot be honoured here; merge the LoRA into a plain one")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{where}: alpha_pattern is no object; {_FIX}")
    alphas = {key: _number(value, f"{where}, alpha_pattern") for key, value in patterns.items()}
    alpha = config.get("lora_alpha")
    if alphas and alpha is None:
        raise UserError(f"{where} has alpha_pattern without lora_alpha; {_FIX}")
    value = None if alpha is None else _number(alpha, f"{where}, lora_alpha")
    return Scale(value, alphas, bool(config.get("use_rslora")), alone=True)


def _number(value: Any, where: str) -> float:
    text = value if isinstance(value, str) else str(value)
    number = parse_json(text, where, object, _FIX)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{where}: {text[:40]!r} is no number; {_FIX}")
    return float(number)


def _matches(pattern: str, place: str) -> bool:
    """As PEFT: the pattern, a regular expression, matches the end of the module's name from a dot on."""
    try:
        return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", place) is not None
    except re.error:
        return pattern == place
