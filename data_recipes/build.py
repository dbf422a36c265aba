"""``python -m data_recipes.build +recipe=nano [pairs=N] [out=DIR] [stage=…] [engine=ray]``: make a data set of pairs.

Each stage resumes where it was stopped, and makes only what is missing.
"""

import importlib.metadata
import math
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from data_recipes.decisions import Review
from data_recipes.drafting import Drafts, reject_near_duplicates
from data_recipes.exporting import Export, export, push
from data_recipes.filtering import Filter
from data_recipes.plan import Plan
from data_recipes.stages import Stage, StageRun, shards_of
from data_recipes.synthesis import Synthesis
from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import command
from imvideoedit.common.owner import owned
from imvideoedit.common.terminal import printable

STAGES = ("prompts", "synthesize", "filter", "review", "export")
ROUNDS = 5  # of more candidates while too few are accepted
LIBRARIES = ("imvideoedit", "diffusers", "transformers", "torch", "datasets", "pyarrow", "pillow", "numpy")


class Build:
    """A run of a recipe in its folder."""

    def __init__(self, config: DictConfig) -> None:
        self.name, self.out, self.pairs = config.name, Path(config.out), int(config.pairs)
        if self.pairs < 1:
            raise UserError(f"pairs is {self.pairs}; ask for at least 1")
        if not 0 < config.expected_yield <= 1:
            raise UserError(f"expected_yield is {config.expected_yield}; it must be above 0 and at most 1")
        self.expected_yield = float(config.expected_yield)
        self.engine = instantiate(config.engine)
        writer, painter, judge = (instantiate(config[part], _convert_="all") for part in ("writer", "painter", "judge"))
        self.plan: Plan = instantiate(config.plan, _convert_="all")
        self.drafts = Drafts(self.plan, writer)
        self.threshold = float(config.prompts.duplicates)
        if not 0 < self.threshold <= 1:
            raise UserError(f"prompts.duplicates is {self.threshold}; it must be above 0 and at most 1")
        self.synthesis: Synthesis = instantiate(config.synthesize, _convert_="all")(painter=painter)
        self.filter: Filter = instantiate(config.filter, _convert_="all")(judge=judge)
        self.options: Export = instantiate(config.export, _convert_="all")
        self.models = writer.models | painter.models | judge.models
        self.console = Console()

    def run(self, stage: str) -> None:
        """One stage, or ``all`` of them until there are enough pairs."""
        if stage != "all":
            self._stage(stage, self._shards_known())
            return
        shards = self._shards_wanted(self.pairs / self.expected_yield)
        for _ in range(ROUNDS):
            for name in STAGES[:-1]:
                self._stage(name, shards)
            accepted = shards_of(self.out, "review").manifest()["accepted"]
            more = self._shards_wanted(shards * self.plan.rows_per_shard * 1.05 * self.pairs / max(accepted, 1))
            if accepted >= self.pairs or accepted == 0 or more <= shards:
                break
            self.say(f"{accepted:,} of {self.pairs:,} pairs were accepted; continuing with {more - shards} more shards")
            shards = more
        self._stage("export", shards)

    def _shards_known(self) -> int:
        """As many as there are prompts for, or as the wanted pairs need."""
        wanted = self._shards_wanted(self.pairs / self.expected_yield)
        return max(wanted, shards_of(self.out, "prompts").count())

    def _shards_wanted(self, rows: float) -> int:
        shards = math.ceil(rows / self.plan.rows_per_shard)
        most = self.drafts.writer.shards()
        return shards if most is None else min(shards, most)

    def _stage(self, name: str, shards: int) -> None:
        if name == "prompts":
            self._make(self.drafts, shards)
            self._finish(name, *reject_near_duplicates(self.out, shards, self.threshold))
        elif name == "export":
            self._export()
        else:
            before = STAGES[STAGES.index(name) - 1]
            known = shards_of(self.out, before).count()
            if not known:
                raise UserError(f"{self.out} has no finished stage {before}; run stage={before} first")
            stages = {"synthesize": self.synthesis, "filter": self.filter, "review": Review(self.out / "decisions")}
            self._make(stages[name], min(shards, known))

    def _make(self, stage: Stage, shards: int) -> None:
        run = StageRun(stage, self.out)
        keys, missing = run.missing(shards)
        if missing:
            estimate = stage.estimate(len(missing) * self.plan.rows_per_shard)
            if estimate:
                self.say(f"{stage.name}: {estimate}")
            self._run(run, missing)
        self._finish(stage.name, keys, len(missing))

    def _run(self, run: StageRun, missing: Sequence[int]) -> None:
        made, hidden = self.engine.run(run, missing), not self.console.is_terminal
        for _ in track(made, run.stage.name, len(missing), console=self.console, transient=True, disable=hidden):
            pass

    def _finish(self, name: str, keys: Sequence[str], made: int) -> None:
        manifest = shards_of(self.out, name).finish(keys, {"stage": name, "recipe": self.name})
        if name == "drafts":  # part of prompts
            return
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in manifest["rejected"].items())
        self.say(
            f"{name}: {manifest['accepted']:,} of {manifest['rows']:,} rows accepted"
            f"{f' (rejected: {reasons})' if reasons else ''}; {made} of {len(keys)} shards made now"
        )

    def _export(self) -> None:
        if not shards_of(self.out, "review").count():
            raise UserError(f"{self.out} has no finished stage review; run stage=review first")
        versions = {library: _version(library) for library in LIBRARIES}
        facts = {"recipe": self.name, "models": self.models, "versions": versions}
        manifest = export(self.out, self.options, facts)
        splits = ", ".join(f"{count:,} {split}" for split, count in manifest["splits"].items())
        self.say(f"export: {manifest['pairs']:,} pairs ({splits}) in {self.out / 'export'}")
        if manifest["pairs"] < self.pairs:
            self.say(f"that is fewer than the {self.pairs:,} asked for; lower expected_yield to plan for more")
        if self.options.push:
            self.say(f"pushed to {push(self.out / 'export', self.options.push)}")

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def build(config: DictConfig) -> None:
    """Run the configured stage or all.

    Raises:
        UserError: no recipe was named, or an error of a stage.
    """
    if "writer" not in config:
        raise UserError("no recipe was named; add +recipe=nano or +recipe=pairs_13k")
    if config.stage not in ("all", *STAGES):
        raise UserError(f"stage is {config.stage!r}; it must be all, {', '.join(STAGES)}")
    recipe = Build(config)
    if config.stage == "review" and config.page:
        from data_recipes.review import serve_page

        serve_page(recipe.out, config.reviewer, config.filter.accept)
    with owned(recipe.out, "a recipe's build"):
        recipe.run(config.stage)


main = command("build", build)


if __name__ == "__main__":
    main()
