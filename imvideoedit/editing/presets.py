"""Presets between quality and time, from an adapter's own settings."""

from collections.abc import Callable
from dataclasses import replace

from imvideoedit.common.errors import UserError
from imvideoedit.editing.sampling_config import SamplingConfig


def best(own: SamplingConfig) -> SamplingConfig:
    """As the adapter wants to be run."""
    return own


def standard(own: SamplingConfig) -> SamplingConfig:
    """Half the steps; guidance in the first half of them, where the layout is decided."""
    return replace(own, steps=max(own.steps // 2, 1), solver="unipc", guided_share=0.5)


def draft(own: SamplingConfig) -> SamplingConfig:
    """A fifth of the steps, and no guidance."""
    return replace(own, steps=max(own.steps // 5, 1), solver="unipc", guidance=1.0, source_guidance=1.0)


PRESETS: dict[str, Callable[[SamplingConfig], SamplingConfig]] = {"draft": draft, "standard": standard, "best": best}


def check_quality(quality: str) -> None:
    """Raise a UserError unless there is such a quality."""
    if quality not in PRESETS:
        raise UserError(f"quality is {quality!r}; choose {', '.join(PRESETS)}")
