"""Logs that survive an interruption: earlier rows are kept, and no step has two."""

import csv
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing


class KeptWriter(ExperimentWriter):
    """Appends to the rows of the file; a row of a step that is repeated replaces the earlier one."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.rows: list[dict[str, Any]] = []
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def _check_log_dir_exists(self) -> None:
        """Lightning's deletes an existing file."""

    def forget(self, step: int) -> None:
        """Drop rows of that step and later ones: they will be repeated."""
        self.rows = [row for row in self.rows if int(row["step"]) < step]

    def complete(self, step: int, values: Mapping[str, Any]) -> None:
        """Add the row of a step, where there are values and none of them is in the file."""
        names = values.keys() - {"epoch"}  # which rows of validations have, too
        if names and not any(int(row["step"]) == step and any(map(row.get, names)) for row in self.rows):
            self.log_metrics(dict(values), step)

    def save(self) -> None:
        """Replace the file by all rows."""
        if not self.metrics:
            return
        self.rows += [{key: value for key, value in row.items() if value is not None} for row in self.metrics]
        self.metrics = []
        columns = sorted({key for row in self.rows for key in row})
        with replacing(self.metrics_file_path) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)


class KeptCSVLogger(CSVLogger):
    """Lightning's CSV log, kept across interruptions."""

    @property
    def experiment(self) -> Any:
        if _logs() and self._experiment is None:
            self._experiment = KeptWriter(log_dir=self.log_dir)
        return super().experiment

    def begin(self, step: int, last: Mapping[str, Any]) -> None:
        """Drop rows of this optimizer step and later ones, which an interruption left.

        Args:
            last: values of the step before, which it may have kept from the file.
        """
        if _logs():
            self.experiment.forget(step)
            self.experiment.complete(step - 1, last)


def _logs() -> bool:
    """Whether this process logs."""
    return getattr(rank_zero_only, "rank", 0) == 0


def wandb_logger(folder: Path | str, project: str, name: str) -> WandbLogger:
    """Weights & Biases, with the same run after an interruption; WANDB_MODE=offline needs no network.

    Raises:
        UserError: wandb is not installed.
    """
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"logger=wandb needs wandb, which cannot be imported ({error}); pip install 'imvideoedit[train]'"
        ) from error
    identity = Path(folder) / "wandb_id"
    if _logs() and not identity.exists():
        with replacing(identity) as path:
            path.write_text(uuid.uuid4().hex[:8])
    found = identity.read_text().strip() if identity.exists() else None
    return WandbLogger(project=project, name=name, save_dir=folder, id=found, resume="allow")
