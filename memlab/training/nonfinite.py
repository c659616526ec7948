"""Steps whose loss or gradient is not finite: found before they move anything, told, and left out if that is wished."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from memlab.checks import check_choice, check_whole_number
from memlab.files import write_whole
from memlab.memory.exchange import Processes
from memlab.training.checkpoints import LastCheckpoint
from memlab.training.processes import added_up
from memlab.training.trained_module import TrainedModule

log = logging.getLogger(__name__)

STOP, SKIP = "stop", "skip"
FILE, STATE = "nonfinite.json", "nonfinite.ckpt"


class DivergenceError(ArithmeticError):
    """The loss or its gradient is no longer finite."""


class NonFinite(pl.Callback):
    """Looks at the loss of every batch and at the gradient of every step, before the optimizer moves.

    Where one is NaN or infinite, ``nonfinite.json`` in the run's folder names the step, the objects and the parameters
    whose gradient it is, and ``nonfinite.ckpt`` beside the other checkpoints is the state that the step began with.
    Then training stops; or the step is left out, so that the optimizer makes no move and its figures are not counted.
    A step of fp16 whose gradient overflows is none of these: Lightning's loss scale is there to leave it out.

    A GPU is waited for once in a step, where the optimizer is about to move.

    Args:
        action: ``stop`` or ``skip``.
        most: steps left out in a row; the next one stops.

    Raises:
        ValueError: for another action, or a number below 1.
    """

    def __init__(self, *, action: str, most: int) -> None:
        self._skips = check_choice("on_nonfinite", action, [STOP, SKIP]) == SKIP
        self._most = check_whole_number("max_skipped_in_a_row", most)
        self.skipped = 0
        """Steps left out so far."""
        self._in_a_row = 0
        self._batches: list[Any] = []
        self._losses: list[Tensor] = []
        self._found: dict[str, Any] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch: a step may have several."""
        assert isinstance(pl_module, TrainedModule)
        if not self._batches:
            pl_module.step_begins()
        self._batches.append(batch)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Keep the loss, as it is: nothing is waited for."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """See whether all is finite; if not, tell it, and take the gradients from the optimizer.

        Raises:
            DivergenceError: if training is to stop.
        """
        assert isinstance(pl_module, TrainedModule)
        scales_loss = getattr(trainer.precision_plugin, "scaler", None) is not None
        gradients = [] if scales_loss else _gradients(optimizer)
        largest = torch.stack([*(loss.abs() for loss in self._losses), *_largest(gradients)]).sum()
        largest = added_up(trainer, largest)  # of all processes, which are to do the same
        batches, losses = self._batches, self._losses
        self._batches, self._losses = [], []
        if math.isfinite(largest):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        what = self._tell(trainer, pl_module, batches, losses)
        if not self._skips or self._in_a_row > self._most:
            raise DivergenceError(what + self._advice())
        self.skipped += 1
        log.warning(f"{what}; left out, {self._in_a_row} in a row of at most {self._most}")
        pl_module.step_is_left_out()
        optimizer.zero_grad(set_to_none=True)  # of a parameter without gradient an optimizer takes no notice

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what was found to the state that is kept of it."""
        if self._found:
            checkpoint["nonfinite"] = self._found

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on counts from."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def _tell(self, trainer: pl.Trainer, module: TrainedModule, batches: list[Any], losses: list[Tensor]) -> str:
        """Write the files, if the run has a folder; what was found, in words.

        Of several steps in a row the first: the others begin with the same state.
        """
        found: dict[str, Any] = {
            "step": trainer.global_step + 1,
            "epoch": trainer.current_epoch + 1,
            "losses": [str(float(added_up(trainer, loss))) for loss in losses],  # JSON has no NaN
            "parameters": [
                name
                for name, each in module.named_parameters()
                if each.grad is not None and not each.grad.isfinite().all()
            ],
            "objects": _of_all(trainer, [batch.ids.tolist() for batch in batches]),
        }
        wrong = [loss for loss in found["losses"] if not math.isfinite(float(loss))]
        first = f"train/loss={wrong[0]}" if wrong else f"the gradient of {found['parameters'][0]}"
        what = f"{first} in step {found['step']}, epoch {found['epoch']}{'' if wrong else ' is not finite'}"
        folder = _folder_of_checkpoints(trainer)
        if folder is None or self._in_a_row > 1:
            return what
        lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
        if trainer.is_global_zero:
            write_whole(folder.parent / FILE, "{\n" + ",\n".join(lines) + "\n}\n")
        self._found = {**found, "support": [module.support_ids(batch) for batch in batches]}
        trainer.save_checkpoint(folder / STATE)
        self._found = {}
        return f"{what} (its objects: {FILE}, the state before it: {folder.name}/{STATE})"

    def _advice(self) -> str:
        """What to do about it."""
        if self._skips:
            return f"; more than max_skipped_in_a_row={self._most}: lower the learning rate (lr)"
        return (
            ": must stay finite; lower the learning rate (lr), clip gradients (gradient_clip_val),"
            f" or leave such steps out (on_nonfinite={SKIP})"
        )


def skipped_steps(trainer: pl.Trainer) -> int:
    """Steps of a training that were left out."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return sum(each.skipped for each in callbacks if isinstance(each, NonFinite))


def _of_all(trainer: pl.Trainer, batches: list[list[int]]) -> list[list[int]]:
    """The objects of each batch, those of other processes included, where the first process is."""
    if trainer.world_size == 1:
        return batches
    by_rank = Processes.of().for_first(batches) or [batches]
    return [[id_ for part in parts for id_ in part] for parts in zip(*by_rank, strict=True)]


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    parameters = (each for group in optimizer.param_groups for each in group["params"])
    return [each.grad for each in parameters if each.grad is not None]


def _largest(gradients: list[Tensor]) -> list[Tensor]:
    """The largest entry of all: of sums of squares even finite ones can be infinite."""
    return [get_total_norm(gradients, norm_type=math.inf)] if gradients else []


def _folder_of_checkpoints(trainer: pl.Trainer) -> Path | None:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each.path.parent for each in callbacks if isinstance(each, LastCheckpoint)), None)
