"""The files that tell what a run began with and whether it is finished."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.training.checkpoints import latest

FIXED = ("seed", "backbone", "method", "data")  # config groups that cannot change when a run is resumed


class RunFolder:
    """``run_dir`` of a composed config: opened for a new run, or to resume one.

    Attributes:
        checkpoint: path of the latest undamaged checkpoint and the contents of its checksum file, if there is one.
        finished: whether the run is complete, with this very config.

    Raises:
        UserError: there is a run and ``resume`` is false, or it has other values of ``FIXED``.
    """

    def __init__(self, config: DictConfig) -> None:
        self.folder = Path(config.run_dir)
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        self.settings = {key: value for key, value in resolved.items() if key != "resume"}
        self.checkpoint = latest(self.folder / "checkpoints")
        if self.checkpoint is not None and not config.resume:
            raise UserError(f"{self.folder} holds a run; leave resume=false out to resume it, or give name=ANOTHER")
        begun, finished = self.folder / "begun.json", self.folder / "finished.json"
        if self.checkpoint is None or not begun.exists():
            self._write(begun)
        else:
            self._check(begun)
        self.finished = finished.exists() and json.loads(finished.read_text()) == self.settings

    def finish(self, steps: Iterable[Callable[[Path], Any]]) -> None:
        """Call each of ``steps`` with the folder, then mark the run as finished."""
        for step in steps:
            step(self.folder)
        self._write(self.folder / "finished.json")

    def _check(self, begun: Path) -> None:
        before = json.loads(begun.read_text())
        changed = [key for key in FIXED if before[key] != self.settings[key]]
        if changed:
            raise UserError(
                f"{self.folder} was begun with other settings of {', '.join(changed)} (see {begun}); "
                "give those again, or begin another run with name=ANOTHER"
            )

    def _write(self, path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.settings, indent=2) + "\n")
