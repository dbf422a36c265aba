"""The progress bar of a training run, and which hints of libraries are silenced."""

import logging
import warnings

from lightning.pytorch.callbacks import RichProgressBar


class TrainingBar(RichProgressBar):
    """Counts all batches of a run, also those before a resume; shows epochs only where there are several."""

    @property
    def total_train_batches(self) -> int | float:
        return self.trainer.num_training_batches

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        return "training" if epochs in (None, -1, 1) else f"epoch {current_epoch + 1} of {epochs}"


def quiet_libraries() -> None:
    """Silence hints of Lightning and torch that a user cannot act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    hints = ("many workers", "not resumable", "Mismatch dtype", "LeafSpec", "non-empty", "no `val_dataloader`")
    for hint in hints:
        warnings.filterwarnings("ignore", message=f".*{hint}")
