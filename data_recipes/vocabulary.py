"""Compositions: an environment with a few conditions, from lists that anybody may edit."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_recipes.plan import turns
from imvideoedit.common.errors import UserError

FOLDER = Path(__file__).parent / "words"


@dataclass(frozen=True)
class Composition:
    """What a scene is to be of: the group of its environment, the environment, and conditions by kind."""

    group: str
    environment: str
    conditions: dict[str, str]

    def words(self) -> str:
        """As a model is told."""
        return "; ".join([self.environment, *(f"{kind}: {entry}" for kind, entry in self.conditions.items())])


@dataclass(frozen=True)
class Vocabulary:
    """Environments in groups, and the conditions that may join them."""

    groups: dict[str, dict[str, list[str]]]
    conditions: dict[str, list[str]]

    @functools.cached_property
    def environments(self) -> list[tuple[str, str]]:
        """(group, environment), in the files' order."""
        return [(name, entry) for name, group in self.groups.items() for entry in group["entries"]]

    def compose(self, seed: int, index: int, counts: tuple[int, int]) -> Composition:
        """Composition ``index``: every environment comes once in each round, with ``counts`` (least, most) conditions.

        Of each kind of condition at most one is drawn, so that none contradicts another of its kind.
        """
        group, environment = self.environments[turns(seed, index, len(self.environments))]
        rng = np.random.default_rng((seed, 4, index))
        kinds = self.groups[group]["conditions"]
        count = min(int(rng.integers(counts[0], counts[1] + 1)), len(kinds))
        chosen = sorted(rng.choice(len(kinds), count, replace=False))
        conditions = {kinds[i]: str(rng.choice(self.conditions[kinds[i]])) for i in chosen}
        return Composition(group, environment, conditions)


def read_vocabulary(folder: Path = FOLDER) -> Vocabulary:
    """Read ``environments.yaml`` and ``conditions.yaml``.

    Raises:
        UserError: a file is missing, is no YAML, or does not hold what it should; names the file and the place.
    """
    conditions = _read(folder / "conditions.yaml")
    for kind, entries in conditions.items():
        _check_texts(folder / "conditions.yaml", str(kind), entries)
    groups = _read(folder / "environments.yaml")
    for name, group in groups.items():
        file = folder / "environments.yaml"
        if not isinstance(group, dict) or set(group) != {"conditions", "entries"}:
            raise UserError(f"{file}: {name} must hold conditions and entries, and nothing else")
        _check_texts(file, f"{name}.entries", group["entries"])
        _check_texts(file, f"{name}.conditions", group["conditions"])
        unknown = set(group["conditions"]) - set(conditions)
        if unknown:
            raise UserError(f"{file}: {name}.conditions names {', '.join(sorted(unknown))}, not in conditions.yaml")
    return Vocabulary(groups, conditions)


def _read(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text())
    except FileNotFoundError as error:
        raise UserError(f"there is no {file}; give a folder with environments.yaml and conditions.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no YAML: {' '.join(str(error).split())}; mend it") from error
    if not isinstance(read, dict) or not read:
        raise UserError(f"{file} must hold groups by name; it holds {type(read).__name__}")
    return read


def _check_texts(file: Path, where: str, entries: Any) -> None:
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file}: {where} must be a list of texts")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, str) or not entry.strip():
            raise UserError(f"{file}: entry {number} of {where} is {entry!r}; it must be a text, in quotes perhaps")
