"""Which endpoint to ask, as whom, and for how much."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from imvideoedit.common.errors import UserError


def _text(variable: str, default: str) -> Callable[[], str]:
    return lambda: os.environ.get(variable) or default


def _number(variable: str, default: float | None) -> Callable[[], float | None]:
    def read() -> float | None:
        text = os.environ.get(variable)
        try:
            return float(text) if text else default
        except ValueError:
            raise UserError(f"{variable} is {text!r}, which is no number; mend it or unset it") from None

    return read


def _cache() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IMVIDEOEDIT_CACHE") or caches / "imvideoedit")


@dataclass(frozen=True)
class EndpointSettings:
    """How to ask a chat endpoint. What is not given is read from the environment when the settings are made.

    The key itself is no setting: it stays in the environment, in the variable that ``key_variable`` names.

    Attributes:
        url: of the endpoint, up to and with its version; ``IMVIDEOEDIT_ENDPOINT``, or OpenAI's own.
        model: as the endpoint calls it, one that sees pictures; ``IMVIDEOEDIT_MODEL``, or ``gpt-5.4-mini``.
        key_variable: environment variable that holds the key; ``IMVIDEOEDIT_KEY_VARIABLE``, or ``OPENAI_API_KEY``.
        cache: folder of the answers and of what was spent; ``IMVIDEOEDIT_CACHE``, or ``imvideoedit`` in the user's
            folder for caches.
        input_price, output_price: of a million tokens, at least 0; ``IMVIDEOEDIT_INPUT_PRICE`` and
            ``IMVIDEOEDIT_OUTPUT_PRICE``, or 0.
        max_cost: the most that may be spent, in the currency of the prices, at least 0, in all processes that share
            the cache folder together, ever; ``IMVIDEOEDIT_MAX_COST``, or None for no limit.
        image_tokens: the most tokens that the model counts one image for. The default holds for the most wasteful
            models known; a lower one makes less of the budget wait for calls under way.
        max_tokens: of an answer, at least 1; thoughts of a reasoning model count.
        temperature: in [0, 2].
        timeout: seconds without a sign of the endpoint until a try has failed, above 0.
        tries: of one question, at least 1.
        backoff: seconds before the second try, at least 0; they double from try to try.
        longest_wait: seconds between two tries at most, at least 0. An endpoint that asks for more is given up.
        per_minute: calls a minute of one process at most, above 0; None for no limit.

    Raises:
        UserError: a value is out of its range, or there is a budget without prices.
    """

    url: str = field(default_factory=_text("IMVIDEOEDIT_ENDPOINT", "https://api.openai.com/v1"))
    model: str = field(default_factory=_text("IMVIDEOEDIT_MODEL", "gpt-5.4-mini"))
    key_variable: str = field(default_factory=_text("IMVIDEOEDIT_KEY_VARIABLE", "OPENAI_API_KEY"))
    cache: Path = field(default_factory=_cache)
    input_price: float = field(default_factory=_number("IMVIDEOEDIT_INPUT_PRICE", 0.0))  # type: ignore[assignment]
    output_price: float = field(default_factory=_number("IMVIDEOEDIT_OUTPUT_PRICE", 0.0))  # type: ignore[assignment]
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
        for name, lowest in {"input_price": 0, "output_price": 0, "max_cost": 0, "image_tokens": 0}.items():
            self._check(name, lowest)
        for name, lowest in {"max_tokens": 1, "tries": 1, "backoff": 0, "longest_wait": 0, "temperature": 0}.items():
            self._check(name, lowest)
        if not 0 < self.timeout < math.inf:
            raise UserError(f"timeout is {self.timeout}; it must be above 0 seconds")
        if self.per_minute is not None and not 0 < self.per_minute < math.inf:
            raise UserError(f"per_minute of the endpoint is {self.per_minute}; it must be above 0, or null")
        if self.temperature > 2:
            raise UserError(f"temperature is {self.temperature}; it must be in [0, 2]")
        if self.max_cost is not None and self.input_price == self.output_price == 0:
            raise UserError(
                f"a budget of {self.max_cost:g} cannot be held without prices; "
                "set IMVIDEOEDIT_INPUT_PRICE and IMVIDEOEDIT_OUTPUT_PRICE, per million tokens"
            )

    def _check(self, name: str, lowest: float) -> None:
        value = getattr(self, name)
        if value is not None and not lowest <= value < math.inf:
            raise UserError(f"{name} of the endpoint is {value}; it must be at least {lowest}")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of urlsplit, or of a port that is no number
        well_formed = False
    if not well_formed:
        raise UserError(f"the endpoint {url!r} is no http address; set IMVIDEOEDIT_ENDPOINT to one ending in /v1")
    if parts.username or parts.password or parts.query:
        # The text of the address goes into messages, so nothing secret may be in it (nor is it shown here).
        raise UserError(
            "the endpoint's address holds a user, password or query; give only the address, and the key apart"
        )
