"""The files that tell what a run began with and whether it is finished."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.json_file import parse_json, read_json
from imvideoedit.common.owner import is_first_process
from imvideoedit.training.checkpoints import latest
from imvideoedit.training.run_settings import changed, flattened, refused, shown

STARTS = "starts.jsonl"
REMEDY = "remove it, or begin another run with name=ANOTHER"


class RunFolder:
    """``run_dir`` of a composed config: opened for a new run, or to resume one.

    ``begun.json`` holds the settings of the first start; ``starts.jsonl`` a line for each start: the step that it
    begins at, and the settings that have other values than at the start before.

    Attributes:
        checkpoint: path of the latest undamaged checkpoint and the contents of its checksum file, if there is one.
        finished: whether the run is complete, with this very config.

    Raises:
        UserError: there is a run and ``resume`` is false, or a setting that cannot change has another value.
    """

    def __init__(self, config: DictConfig) -> None:
        self.folder = Path(config.run_dir)
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        self.settings = {key: value for key, value in resolved.items() if key != "resume"}
        self.checkpoint = latest(self.folder / "checkpoints")
        if self.checkpoint is not None and not config.resume:
            raise UserError(f"{self.folder} holds a run; leave resume=false out to resume it, or give name=ANOTHER")
        self._begun = self.folder / "begun.json"
        self._resumed = self.checkpoint is not None and self._begun.exists()
        if self._resumed:
            self._check()
        finished = self.folder / "finished.json"
        self.finished = finished.exists() and _read(finished) == self.settings

    def start(self) -> None:
        """Record a start, and say what it changes; by the run's first process alone."""
        if not is_first_process():
            return
        starts, step = self.folder / STARTS, self.checkpoint[1].get("step", 0) if self.checkpoint else 0
        lines = _lines(starts) if self._resumed else []
        changes = changed(self._last(lines), self.settings) if self._resumed else {}
        if not self._resumed:
            self._write(self._begun)
        if changes:
            print(f"resumes from step {step} with {shown(changes)}", flush=True)
        lines.append(json.dumps({"step": step, "changed": changes}))
        with replacing(starts) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines))

    def finish(self, steps: Iterable[Callable[[Path], Any]]) -> None:
        """Call each of ``steps`` with the folder, then mark the run as finished."""
        for step in steps:
            step(self.folder)
        self._write(self.folder / "finished.json")

    def _check(self) -> None:
        before = _read(self._begun)
        # A setting that did not exist when the run began had its default.
        wrong = [
            name for name in refused(changed(before, self.settings)) if name not in _new_names(before, self.settings)
        ]
        if wrong:
            changes = changed(before, self.settings)
            raise UserError(
                f"{self.folder} was begun with other settings, which a resumed run cannot take: "
                f"{shown({name: changes[name] for name in wrong})} (see {self._begun}); give those again, or begin "
                "another run with name=ANOTHER"
            )

    def _last(self, lines: list[str]) -> dict[str, Any]:
        """The settings of the start before, by dotted names."""
        settings = flattened(_read(self._begun))
        for line in lines:
            match parse_json(line, f"a line of {self.folder / STARTS}", fix=REMEDY):
                case {"changed": dict(changes)} if all(isinstance(c, list) and len(c) == 2 for c in changes.values()):
                    settings |= {name: new for name, (_, new) in changes.items()}
                case _:
                    raise UserError(f"a line of {self.folder / STARTS} does not say what a start changed; {REMEDY}")
        return settings

    def _write(self, path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.settings, indent=2) + "\n")


def _new_names(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Names of ``now`` that ``before`` lacks, where they have no value."""
    known = flattened(before)
    return {name for name, value in flattened(now).items() if name not in known and value is None}


def _lines(starts: Path) -> list[str]:
    # What is no UTF-8 is no JSON either, which reading the line says.
    return starts.read_text(encoding="utf-8", errors="replace").splitlines() if starts.exists() else []


def _read(path: Path) -> Any:
    return read_json(path, fix=REMEDY)
