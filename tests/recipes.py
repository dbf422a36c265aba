"""Recipes run in this process, and their results in a form to compare."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir

from data_recipes.build import build as build_recipe
from imvideoedit.common.hydra_command import CONF

SMALL = {"plan.scenes_per_shard": 10, "export.validation": 0.2}


def build(out: Path, *overrides: str, recipe: str = "nano", **settings: Any) -> None:
    """Run a recipe as the command does."""
    given = SMALL | {"out": out} | settings
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("build", [f"+recipe={recipe}", *(f"{k}={v}" for k, v in given.items()), *overrides])
    build_recipe(config)


def content(out: Path) -> list[dict[str, Any]]:
    """All rows of the exported data, images as bytes, file by file."""
    files = sorted((out / "export" / "data").glob("*.parquet"))
    return [{"file": path.name, "rows": pq.read_table(path).to_pylist()} for path in files]
