"""The best weights of a training that writes nothing."""

from __future__ import annotations

import math

import pytorch_lightning as pl
from torch import Tensor

from memlab.checks import check_choice


class BestWeights(pl.Callback):
    """Keeps the weights of the best validation in memory, and gives them back to the model when training is over.

    Of validations equally good it is the last one. Without a validation those of the last step stay. For runs that
    write nothing.

    Args:
        monitor: logged figure that tells which is best.
        mode: ``min`` or ``max``, the end of it that is best.
    """

    def __init__(self, *, monitor: str, mode: str) -> None:
        self._monitor = monitor
        self._sign = 1 if check_choice("mode", mode, ["min", "max"]) == "min" else -1
        self._best = math.inf
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if none before were better."""
        if trainer.sanity_checking:
            return
        figure = self._sign * float(trainer.callback_metrics[self._monitor])
        if figure <= self._best:
            self._best = figure
            self._weights = {name: each.detach().clone() for name, each in pl_module.state_dict().items()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give them back."""
        if self._weights:
            pl_module.load_state_dict(self._weights)
