"""Compositions: an environment with a few conditions, from lists that users may edit."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from data_recipes.plan import round_robin
from imvideoedit.common.errors import UserError

FOLDER = Path(__file__).parent / "words"
Texts = Annotated[list[Annotated[str, Field(pattern=r"\S", strict=True)]], Field(min_length=1)]


class Group(BaseModel, extra="forbid"):
    """Environments, and the kinds of conditions that can be added to them."""

    conditions: Texts
    entries: Texts


@dataclass(frozen=True)
class Composition:
    """The subject of a scene: the group of its environment, the environment, and conditions by kind."""

    group: str
    environment: str
    conditions: dict[str, str]

    def words(self) -> str:
        """The text for a model."""
        return "; ".join([self.environment, *(f"{kind}: {entry}" for kind, entry in self.conditions.items())])


@dataclass(frozen=True)
class Vocabulary:
    """Environments in groups, and the conditions that can be added to them."""

    groups: dict[str, dict[str, list[str]]]
    conditions: dict[str, list[str]]

    @functools.cached_property
    def environments(self) -> list[tuple[str, str]]:
        """(group, environment), in the files' order."""
        return [(name, entry) for name, group in self.groups.items() for entry in group["entries"]]

    def compose(self, seed: int, index: int, counts: tuple[int, int]) -> Composition:
        """Composition ``index``: each environment occurs once in a round, with ``counts`` (least, most) conditions.

        At most one condition of each kind is drawn, so that none contradicts another.
        """
        group, environment = self.environments[round_robin(seed, index, len(self.environments))]
        rng = np.random.default_rng((seed, 4, index))
        kinds = self.groups[group]["conditions"]
        count = min(int(rng.integers(counts[0], counts[1] + 1)), len(kinds))
        chosen = sorted(rng.choice(len(kinds), count, replace=False))
        conditions = {kinds[i]: str(rng.choice(self.conditions[kinds[i]])) for i in chosen}
        return Composition(group, environment, conditions)


def read_vocabulary(folder: Path = FOLDER) -> Vocabulary:
    """Read ``environments.yaml`` and ``conditions.yaml``.

    Raises:
        UserError: a file is missing, not YAML, or not of this form; names the file and the place.
    """
    conditions, file = _read(folder / "conditions.yaml", Texts), folder / "environments.yaml"
    groups = {name: dict(group) for name, group in _read(file, Group).items()}
    for name, group in groups.items():
        unknown = set(group["conditions"]) - set(conditions)
        if unknown:
            raise UserError(f"{file}: {name}.conditions names {', '.join(sorted(unknown))}, not in conditions.yaml")
    return Vocabulary(groups, conditions)


def _read(file: Path, kind: Any) -> dict[str, Any]:
    try:
        named: Any = Annotated[dict[str, kind], Field(min_length=1)]
        return TypeAdapter(named).validate_python(yaml.safe_load(file.read_text()))
    except FileNotFoundError as error:
        raise UserError(f"there is no {file}; give a folder with environments.yaml and conditions.yaml") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; correct it") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}; correct it") from error
