"""Logs that survive an interruption: earlier rows are kept, and none is there twice."""

import csv
import uuid
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing


class KeptWriter(ExperimentWriter):
    """Goes on with the rows that are there. A row of a step that is done again takes the earlier one's place."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.rows: list[dict[str, Any]] = []
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes what is there."""

    def forget(self, step: int) -> None:
        """Drop rows of that step and later ones: they will come again."""
        self.rows = [row for row in self.rows if int(row["step"]) < step]

    def save(self) -> None:
        """Write all rows; the file appears whole."""
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
        if _first() and self._experiment is None:
            self._experiment = KeptWriter(log_dir=self.log_dir)
        return super().experiment

    def begin(self, step: int) -> None:
        """Training starts at an optimizer step, with rows of it and later ones from before an interruption dropped."""
        if _first():
            self.experiment.forget(step)


def _first() -> bool:
    """Whether this process is the one that logs."""
    return getattr(rank_zero_only, "rank", 0) == 0


def wandb_logger(folder: Path | str, project: str, name: str) -> WandbLogger:
    """Weights & Biases, the same run again after an interruption; by WANDB_MODE=offline without a network.

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
    if _first() and not identity.exists():
        with replacing(identity) as path:
            path.write_text(uuid.uuid4().hex[:8])
    found = identity.read_text().strip() if identity.exists() else None
    return WandbLogger(project=project, name=name, save_dir=folder, id=found, resume="allow")
