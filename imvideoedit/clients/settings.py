"""Settings of an endpoint: address, key, budget, retries."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import user_cache


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


@dataclass(frozen=True)
class EndpointSettings:
    """How to ask a chat endpoint. Defaults are read from the environment when the settings are made.

    Raises:
        UserError: a value is out of its range, or there is a budget without prices.
    """

    url: str = field(default_factory=_text("IMVIDEOEDIT_ENDPOINT", "https://api.openai.com/v1"))  # with its version
    model: str = field(default_factory=_text("IMVIDEOEDIT_MODEL", "gpt-5.4-mini"))  # a vision-language model
    # The environment variable that holds the key. The key itself is no setting: it stays in the environment.
    key_variable: str = field(default_factory=_text("IMVIDEOEDIT_KEY_VARIABLE", "OPENAI_API_KEY"))
    cache: Path = field(default_factory=user_cache)  # folder of the answers and of the money spent
    input_price: float = field(default_factory=_number("IMVIDEOEDIT_INPUT_PRICE", 0.0))  # of a million tokens
    output_price: float = field(default_factory=_number("IMVIDEOEDIT_OUTPUT_PRICE", 0.0))
    # The most that all processes sharing the cache folder may ever spend, in the currency of the prices; or None.
    max_cost: float | None = field(default_factory=_number("IMVIDEOEDIT_MAX_COST", None))
    image_tokens: int = 40_000  # upper bound for one image, for the budget's reservations; holds for all models known
    max_tokens: int = 2_000  # of an answer, reasoning included; at least 1
    temperature: float = 0.0  # in [0, 2]
    timeout: float = 60.0  # seconds without data until an attempt fails, above 0
    tries: int = 5  # attempts at one question, at least 1
    backoff: float = 1.0  # seconds before the second attempt, doubled for each further one
    longest_wait: float = 60.0  # most seconds between attempts; an endpoint that asks for more is given up
    per_minute: float | None = None  # most calls a minute of one process, above 0; None for no limit

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):  # perhaps the key itself: not shown
            raise UserError("the endpoint's key_variable is no name of an environment variable; give that, not the key")
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
    if not well_formed and not set("@?#") & set(url):
        raise UserError(f"the endpoint {url!r} is no http address; set IMVIDEOEDIT_ENDPOINT to one ending in /v1")
    if set("@?#") & set(url):
        # Addresses appear in messages, so they must hold no secrets; this one is not shown.
        raise UserError(
            "the endpoint's address holds a user, password or query; give the address alone, and the key in a variable"
        )
