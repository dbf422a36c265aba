"""Which settings may change when a run is resumed, by name."""

from collections.abc import Mapping
from typing import Any

# What a run is: other values would make another one of it, or would not be applied to what a checkpoint restores.
FIXED = (
    *("seed", "backbone", "method", "data", "global_batch", "task.start", "task.auxiliary", "task.seed"),
    *("task.optimizer._target_", "task.optimizer._partial_", "trainer.accumulate_grad_batches"),
)
# Of these, what decides only how and how long rows are read, and where they lie: the rows themselves are compared.
FREE = ("data.num_workers", "data.epochs", "data.cache", "data.path")


def flattened(settings: Any, name: str = "") -> dict[str, Any]:
    """Settings by dotted names."""
    if not isinstance(settings, Mapping) or not settings:
        return {name: settings}
    items = (flattened(value, f"{name}.{key}" if name else str(key)) for key, value in settings.items())
    return {key: value for part in items for key, value in part.items()}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Settings with other values, as [before, now] by dotted names; None where there was none."""
    old, new = flattened(before), flattened(now)
    pairs = {name: [old.get(name), new.get(name)] for name in {**old, **new}}
    empty: tuple[Any, ...] = (None, {}, [])  # a group without settings, or one that is left out
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and not all(v in empty for v in pair)}


def refused(changes: Mapping[str, Any]) -> list[str]:
    """Those of the changed settings that a resumed run cannot take."""
    return [name for name in changes if _within(name, FIXED) and not _within(name, FREE)]


def shown(changes: Mapping[str, list[Any]]) -> str:
    """Changes for people: each name with both values."""
    return ", ".join(f"{name} {_value(old)} -> {_value(new)}" for name, (old, new) in changes.items())


def _within(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _value(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
