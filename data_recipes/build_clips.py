"""``python -m data_recipes.build_clips +recipe=ffp sources.folder=DIR [out=DIR] [stage=…]``: pairs of clips.

Each stage resumes where it was stopped, and makes only what is missing.
"""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from data_recipes.clip_export import ClipExport, export_clips
from data_recipes.stages import Stage, StageRun, shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import command
from imvideoedit.common.owner import owned
from imvideoedit.common.terminal import say

STAGES = ("sources", "proposals", "masks", "composites", "edits", "verdicts")
EXPORT = "export"


class ClipBuild:
    """A run of a clip recipe in its folder; one of imported clips has no stages but the last two."""

    def __init__(self, config: DictConfig) -> None:
        self.name, self.out = config.name, Path(config.out)
        self.options = ClipExport(int(config.pairs), config.get("most_of_a_kind"))
        self.engine = instantiate(config.engine)
        self.stages: dict[str, Stage] = {
            name: instantiate(config[name], _convert_="all")(out=self.out) for name in STAGES if name in config
        }
        self.models = {
            part: model
            for stage in self.stages.values()
            for component in vars(stage).values()
            if hasattr(component, "models")
            for part, model in component.models.items()
        }

    def run(self, stage: str) -> None:
        """One stage, or ``all``."""
        for name in (*self.stages, EXPORT) if stage == "all" else (stage,):
            if name == EXPORT:
                self._export()
            elif name not in self.stages:
                raise UserError(
                    f"the recipe {self.name} has no stage {name}; it has {', '.join(self.stages)}, {EXPORT}"
                )
            else:
                self._make(self.stages[name])

    def _make(self, stage: Stage) -> None:
        before = next(iter(stage.inputs), None)
        count = stage.shards() if before is None else shards_of(self.out, before).count()  # type: ignore[attr-defined]
        if not count:
            raise UserError(f"{self.out} has no finished stage {before}; run stage={before} first")
        run = StageRun(stage, self.out)
        keys, missing = run.missing(count)
        known = shards_of(self.out, before).manifest()["accepted"] if before else 0
        estimate = stage.estimate(known * len(missing) // count)
        if missing and estimate:
            say(f"{stage.name}: {estimate}")
        for _ in self.engine.run(run, missing):
            pass
        manifest = shards_of(self.out, stage.name).finish(keys, {"stage": stage.name, "recipe": self.name})
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in manifest["rejected"].items())
        say(
            f"{stage.name}: {manifest['accepted']:,} of {manifest['rows']:,} rows accepted"
            f"{f' (rejected: {reasons})' if reasons else ''}; {len(missing)} of {len(keys)} shards made now"
        )

    def _export(self) -> None:
        facts: dict[str, Any] = {"recipe": self.name, "models": self.models}
        say(f"export: {export_clips(self.out, self.options, facts):,} pairs in {self.out / EXPORT}")


def build_clips(config: DictConfig) -> None:
    """Run the configured stage or all.

    Raises:
        UserError: no recipe was named, or an error of a stage.
    """
    if "verdicts" not in config:
        raise UserError("no recipe of clips was named; add +recipe=ffp or +recipe=ffp_imported")
    if config.stage not in ("all", *STAGES, EXPORT):
        raise UserError(f"stage is {config.stage!r}; it must be all, {', '.join(STAGES)} or {EXPORT}")
    with owned(config.out, "a recipe's build"):
        ClipBuild(config).run(config.stage)


main = command("build_clips", build_clips)


if __name__ == "__main__":
    main()
