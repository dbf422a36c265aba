"""Settings of an endpoint: address, key, budget, retries."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imvideoedit.common.errors import UserError


def _text(variable: str, default: str) -> Callable[[], str]:
    return lambda: os.environ.get(variable) or default


def _number(variable: str, default: float | None) -> Callable[[], Any]:
    def read() -> float | None:
        text = os.environ.get(variable)
        try:
            return float(text) if text else default
        except ValueError:
            raise UserError(f"{variable} is {text!r}, which is no number; correct or unset it") from None

    return read


def _cache() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IMVIDEOEDIT_CACHE") or caches / "imvideoedit")


@dataclass(frozen=True)
class EndpointSettings:
    """How to ask a chat endpoint. Defaults are read from the environment when the settings are made.

    The key itself is no setting: it stays in the environment, in the variable that ``key_variable`` names.

    Attributes:
        url: of the endpoint, up to and including its version; ``IMVIDEOEDIT_ENDPOINT``, or OpenAI's own.
        model: the endpoint's name of a vision-language model; ``IMVIDEOEDIT_MODEL``, or ``gpt-5.4-mini``.
        key_variable: environment variable that holds the key; ``IMVIDEOEDIT_KEY_VARIABLE``, or ``OPENAI_API_KEY``.
        cache: folder of the answers and of the money spent; ``IMVIDEOEDIT_CACHE``, or ``imvideoedit`` in the user's
            folder for caches.
        input_price, output_price: of a million tokens, at least 0; ``IMVIDEOEDIT_INPUT_PRICE`` and
            ``IMVIDEOEDIT_OUTPUT_PRICE``, or 0.
        max_cost: the most that all processes sharing the cache folder may ever spend, in the currency of the prices,
            at least 0; ``IMVIDEOEDIT_MAX_COST``, or None for no limit.
        image_tokens: upper bound of the tokens of one image, for the budget's reservations; the default holds for the
            most wasteful models known.
        max_tokens: of an answer, reasoning included; at least 1.
        temperature: in [0, 2].
        timeout: seconds without data from the endpoint until an attempt fails, above 0.
        tries: attempts at one question, at least 1.
        backoff: seconds before the second attempt, at least 0; doubled for each further one.
        longest_wait: most seconds between two attempts, at least 0; an endpoint that asks for more is given up.
        per_minute: most calls a minute of one process, above 0; None for no limit.

    Raises:
        UserError: a value is out of its range, or there is a budget without prices.
    """

    url: str = field(default_factory=_text("IMVIDEOEDIT_ENDPOINT", "https://api.openai.com/v1"))
    model: str = field(default_factory=_text("IMVIDEOEDIT_MODEL", "gpt-5.4-mini"))
    key_variable: str = field(default_factory=_text("IMVIDEOEDIT_KEY_VARIABLE", "OPENAI_API_KEY"))
    cache: Path = field(default_factory=_cache)
    input_price: float = field(default_factory=_number("IMVIDEOEDIT_INPUT_PRICE", 0.0))
    output_price: float = field(default_factory=_number("IMVIDEOEDIT_OUTPUT_PRICE", 0.0))
    max_cost: float | None = field(default_factory=_number("IMVIDEOEDIT_MAX_COST", None))
    image_tokens: int = 40_000
    max_tokens: int = 2_000
    temperature: float = 0.0
    timeout: float = 60.0
    tries: int = 5
    backoff: float = 1.0
    longest_wait: float = 60.0
    per_minute: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        zero = ("input_price", "output_price", "max_cost", "image_tokens", "backoff", "longest_wait", "temperature")
        for name, least in (dict.fromkeys(zero, 0) | {"max_tokens": 1, "tries": 1}).items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UserError(f"{name} of the endpoint is {value}; it must be at least {least}")
        for name, value in {"timeout": self.timeout, "per_minute": self.per_minute}.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} of the endpoint is {value}; it must be above 0")
        if self.temperature > 2:
            raise UserError(f"temperature of the endpoint is {self.temperature}; it must be in [0, 2]")
        if self.max_cost is not None and self.input_price == self.output_price == 0:
            raise UserError(
                f"a budget of {self.max_cost:g} cannot be kept without prices; "
                "set IMVIDEOEDIT_INPUT_PRICE and IMVIDEOEDIT_OUTPUT_PRICE, per million tokens"
            )

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """The price of so many tokens."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # from urlsplit, or a port that is no number
        well_formed = False
    if not well_formed:
        raise UserError(f"the endpoint {url!r} is no http address; set IMVIDEOEDIT_ENDPOINT to one ending in /v1")
    if parts.username or parts.password or parts.query:
        # Addresses appear in messages, so they must hold no secrets; this one is not shown.
        raise UserError(
            "the endpoint's address holds a user, password or query; give the address alone, and the key in a variable"
        )
