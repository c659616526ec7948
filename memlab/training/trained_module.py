"""What is trained, whatever the task: its figures, its optimizer, and what a run needs to go on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from memlab.training.checkpoint_files import CHECKPOINT_FORMAT
from memlab.training.metrics import StepFigures
from memlab.training.processes import added_up, largest


class TrainedModule(pl.LightningModule):
    """Follows the figures of training steps, and lets a run go on from a checkpoint as if it had not been interrupted.

    Who inherits it makes its parameters first, and then calls `prepare_training`.
    """

    train_figures: dict[str, float]
    """Of the last epoch."""
    validated_epoch: int
    """The epoch of the last validation, counted from 0."""
    trained: list[nn.Parameter]
    """What is trained."""

    @property
    def marks(self) -> dict[str, Any]:
        """By what a checkpoint is known to be of such a module: names to plain values."""
        raise NotImplementedError

    def support_ids(self, batch: Any) -> list[int]:
        """Ids of what the objects of a batch read."""
        return []

    def prepare_training(self, optimizer: partial[Optimizer], scheduler: Mapping[str, Any]) -> None:
        """Take what the parameters are trained by.

        Args:
            optimizer: makes the optimizer from the parameters.
            scheduler: learning rate over the training: its ``factor`` as a function of progress
                (`memlab.training.schedules`), or Lightning's configuration of a scheduler (``interval``, ``monitor``,
                ...) whose ``scheduler`` makes it from the optimizer.

        Raises:
            ValueError: if the optimizer refuses its arguments.
        """
        self._make_optimizer = optimizer
        self._scheduler = scheduler
        for name, value in optimizer.keywords.items():
            if isinstance(value, str):
                raise ValueError(f"optimizer.{name}={value}: must be a number")
        try:
            self._make_optimizer([nn.Parameter(torch.zeros(1))])
        except (ValueError, TypeError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self.steps = StepFigures()
        self._resumed: dict[str, Any] = {}
        self.train_figures = {}
        self.validated_epoch = 0

    def on_train_epoch_start(self) -> None:
        """Note what is trained: to ask all modules at every step takes as long as a small encoder does."""
        self.trained = [parameter for parameter in self.parameters() if parameter.requires_grad]

    def tell_step(self, loss: Tensor, *, batch_size: int) -> None:
        """Show the loss of a step, and give it to the loggers.

        Lightning would give what it was last told once more at the last step, which a run that has gone on was not.
        """
        words: dict[str, Any] = {"on_step": True, "on_epoch": False, "batch_size": batch_size}
        self.log("train/step_loss", loss, prog_bar=True, logger=False, **words)
        if not self.trainer.fit_loop._should_accumulate():
            for logger in self.trainer.loggers:
                figures = {"train/step_loss": float(loss), "epoch": self.current_epoch}
                logger.log_metrics(figures, step=self.trainer.global_step)

    def step_begins(self) -> None:
        """What is measured from now on is of a step that may yet be left out."""
        self.steps.mark()

    def step_is_left_out(self) -> None:
        """What was measured of it does not count."""
        self.steps.back()

    def on_train_epoch_end(self) -> None:
        """Log what the steps were like."""
        self.close_epoch()
        self.log_dict(self.train_figures, logger=False)

    def close_epoch(self) -> None:
        """Give the figures of the steps to the loggers.

        At once, not when all hooks are through: the checkpoint of the end of an epoch is to have them behind it.
        """
        figures = self.steps.close(self.added_up, self.largest)
        self.train_figures = {f"train/{name}": float(value) for name, value in figures.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics({**self.train_figures, "epoch": self.current_epoch}, step=self.trainer.global_step - 1)

    def on_train_start(self) -> None:
        """Let a run that goes on from a checkpoint follow its own schedule at once, not the rate the other left."""
        self.on_train_epoch_start()  # which within an epoch Lightning does not call
        if self._resumed:
            self.steps.restore(self._resumed["steps"], self.device, counts=self.trainer.is_global_zero)
            self.trainer.callback_metrics.update(
                {name: torch.tensor(value) for name, value in self._resumed["figures"].items()}
            )
            self._resumed = {}
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            if isinstance(scheduler, LambdaLR):
                groups = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
                for group, first_rate, factor in groups:
                    group["lr"] = first_rate * factor(scheduler.last_epoch)

    def configure_optimizers(self) -> Any:
        """The optimizer and its learning-rate schedule."""
        optimizer = self._make_optimizer(parameter_groups(self))
        if "factor" in self._scheduler:
            factor, steps = self._scheduler["factor"], self.trainer.estimated_stepping_batches
            scheduler: LRScheduler = LambdaLR(optimizer, lambda step: factor(step / steps))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        followed = {"frequency": self.trainer.check_val_every_n_epoch} if "monitor" in self._scheduler else {}
        config = {**followed, **self._scheduler, "scheduler": self._scheduler["scheduler"](optimizer)}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the figures of the last validation, and what a start from it is checked by; plain values and tensors."""
        logged = self.trainer.callback_metrics
        checkpoint["memlab"] = {
            "format": CHECKPOINT_FORMAT,
            **self.marks,
            "epoch": self.validated_epoch,
            "figures": {name: float(logged[name]) for name in logged if name.startswith("validation/")},
            "train_figures": self.train_figures,
            "steps": self.steps.state(self.added_up, self.largest),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Have the figures go on with what was stored."""
        self._resumed = checkpoint["memlab"]
        self.validated_epoch, self.train_figures = self._resumed["epoch"], self._resumed["train_figures"]

    def added_up(self, tensor: Tensor) -> Tensor:
        """The sum of what all processes have."""
        return added_up(self.trainer, tensor)

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest of what they have, entry by entry."""
        return largest(self.trainer, tensor)


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """The parameters to be trained, with weight decay for weights of layers alone.

    Weights are matrices or larger. Biases, factors of normalisations and the logarithm of a scale are vectors or
    numbers that have no reason to be near 0.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if parameter.dim() >= 2]
    others = [parameter for parameter in trained if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": weights},
        {"name": "others", "params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
