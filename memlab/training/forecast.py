"""How long training will take, told while it can still be thought better of."""

from __future__ import annotations

import logging
from time import monotonic

import pytorch_lightning as pl

log = logging.getLogger(__name__)

WORTH_TELLING = 60.0
"""Seconds to come."""


class Forecast(pl.Callback):
    """Tells after the first epoch, its validation included, how long the others will take if all are as long."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure."""
        self._began, self._first_step, self._told = monotonic(), trainer.global_step, False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell, once."""
        done, total = trainer.global_step - self._first_step, trainer.estimated_stepping_batches
        if self._told or not done or not trainer.is_global_zero:
            return
        self._told = True
        left = (total - trainer.global_step) * (monotonic() - self._began) / done
        if WORTH_TELLING <= left < float("inf"):
            log.info(f"training: about {left / 60:.0f} min to come, for the {total - trainer.global_step:,} steps left")
