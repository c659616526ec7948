"""The LightningModule of networks that answer questions over stories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from memlab.checks import check_choice
from memlab.questions.batch import StoryBatch
from memlab.questions.encoded import StoryEncoder
from memlab.questions.network import StoryNetwork
from memlab.training.trained_module import TrainedModule

REDUCTIONS = ("mean", "sum")
MEASURED = ("error", "accuracy", "nll")
"""What an evaluation logs, behind ``validation/`` or ``test/``."""


@dataclass(frozen=True)
class Measured:
    """What questions were answered; T of them, in host memory."""

    ids: Tensor
    """(T,) which question."""
    answers: Tensor
    """(T,) number of the answer."""
    probability: Tensor
    """(T,) of that answer."""
    right: Tensor
    """(T,) whether it is the true one."""
    nll: Tensor
    """(T,) minus the log-probability of the true answer; NaN of one that training has not seen."""
    found: Tensor
    """(T, hops) whether the heaviest sentence of each hop is one that the answer follows from; (T, 0) of a network
    without weights."""
    is_supported: Tensor
    """(T,) whether the data names such a sentence among those that may be read."""

    @classmethod
    def join(cls, parts: Sequence[Measured]) -> Measured:
        """All in one."""
        return cls(*(torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])))

    def error_by_task(self, tasks: Sequence[str]) -> dict[str, float]:
        """Share of the questions of each task that are answered wrong.

        Args:
            tasks: of each question by its id.
        """
        return {task: float((~self.right[rows]).double().mean()) for task, rows in self.by_task(tasks).items()}

    def recall_by_task(self, tasks: Sequence[str]) -> dict[str, list[float]]:
        """Share of the questions whose heaviest sentence is one that the answer follows from, hop by hop.

        Of tasks whose data names such sentences; see `error_by_task`.
        """
        parts = {task: rows[self.is_supported[rows]] for task, rows in self.by_task(tasks).items()}
        return {task: self.found[rows].double().mean(0).tolist() for task, rows in parts.items() if len(rows)}

    def by_task(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The rows of each task, in the order in which these come first."""
        rows: dict[str, list[int]] = {}
        for row, question in enumerate(self.ids.tolist()):
            rows.setdefault(tasks[question], []).append(row)
        return {task: torch.tensor(each) for task, each in rows.items()}


class StoryAnswerer(TrainedModule):
    """Trains a network to answer questions over stories.

    Logs ``train/loss``, nats per question (of a network with a loss of its own, that) by epoch; as ``validation/*`` and
    ``test/*``: ``error``, the mean over the tasks of the share of questions answered wrong, as the field gives it;
    ``accuracy``, the share of all questions answered right; ``nll``, nats per question whose answer training has seen.

    Args:
        network: answers.
        encoder: made the batches.
        reduction: of the losses of a step, ``mean``, or ``sum`` as in the papers of memory networks.
        weights: (N,) what the loss of each training question is multiplied by, by its id; None for 1.
        optimizer: see `TrainedModule.prepare_training`.
        scheduler: see `TrainedModule.prepare_training`.
        validation_tasks: of each validation question by its id.
        test_tasks: of each test question by its id.

    Raises:
        ValueError: for another reduction, or if the optimizer refuses its arguments.
    """

    tested: Measured
    """Of the last test."""
    weights: Tensor | None

    def __init__(
        self,
        *,
        network: StoryNetwork,
        encoder: StoryEncoder,
        reduction: str,
        weights: Tensor | None = None,
        optimizer: partial[Optimizer],
        scheduler: Mapping[str, Any],
        validation_tasks: Sequence[str],
        test_tasks: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = network
        self.encoder = encoder
        self._sums = check_choice("reduction", reduction, REDUCTIONS) == "sum"
        self.register_buffer("weights", weights, persistent=False)
        self._tasks = {"validation": validation_tasks, "test": test_tasks}
        self._parts: list[Measured] = []
        self.prepare_training(optimizer, scheduler)

    @property
    def marks(self) -> dict[str, Any]:
        """See `TrainedModule.marks`."""
        return {
            "network": type(self.network).__name__,
            "words": list(self.encoder.vocabulary.words),
            "answers": list(self.encoder.answers),
        }

    def on_train_start(self) -> None:
        """Note how long the training is."""
        super().on_train_start()
        self._steps_in_all = self.trainer.estimated_stepping_batches

    def training_step(self, batch: StoryBatch, batch_idx: int) -> Tensor:
        """The loss of the questions of some stories."""
        self.network.at_progress(self.trainer.global_step / self._steps_in_all)
        losses = self.network.losses(batch)
        if self.weights is not None:
            losses = losses * self.weights[batch.ids]
        mean = losses.mean()
        self.steps.take("loss", mean, weight=len(batch))
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self.tell_step(mean.detach(), batch_size=len(batch))
        return losses.sum() if self._sums else mean

    def on_validation_epoch_end(self) -> None:
        """Log what was measured."""
        self._close("validation")
        self.validated_epoch = self.current_epoch

    def on_test_epoch_end(self) -> None:
        """Log what was measured, and keep it."""
        self.tested = self._close("test")

    def validation_step(self, batch: StoryBatch, batch_idx: int) -> None:
        """Answer questions."""
        self._parts.append(measured(self.network, batch))

    test_step = validation_step

    def _close(self, stage: str) -> Measured:
        found, self._parts = Measured.join(self._parts), []
        by_task = found.error_by_task(self._tasks[stage])
        figures = {
            "error": sum(by_task.values()) / len(by_task),
            "accuracy": float(found.right.double().mean()),
            "nll": float(found.nll.nanmean()),
        }
        self.log_dict({f"{stage}/{name}": figures[name] for name in MEASURED})
        return found


def measured(network: StoryNetwork, batch: StoryBatch) -> Measured:
    """What a network answers to the questions of a batch."""
    read = network.read(batch)
    probability, answers = read.scores.softmax(1).max(1)
    known = batch.answers >= 0
    nll = F.cross_entropy(read.scores, batch.answers.clamp(min=0), reduction="none").where(known, torch.nan)
    places = torch.arange(len(batch.cells), device=batch.cells.device)
    supported = torch.zeros_like(batch.cells, dtype=torch.bool)
    supported[batch.supports[batch.supports >= 0]] = True
    found = [supported[_heaviest(weights, batch, places)] for weights in read.weights]
    parts = (
        batch.ids,
        answers,
        probability,
        answers == batch.answers,
        nll,
        torch.stack(found, 1) if found else supported.new_zeros(len(batch), 0),
        (batch.supports >= 0).any(1),
    )
    return Measured(*(part.detach().cpu() for part in parts))


def _heaviest(weights: Tensor, batch: StoryBatch, places: Tensor) -> Tensor:
    """(Q,) the cell of the largest weight of each question; of several the newest."""
    largest = weights.new_full((len(batch),), -torch.inf).scatter_reduce(0, batch.asker, weights, "amax")
    at = torch.where(weights == largest[batch.asker], places, -1)
    return at.new_full((len(batch),), -1).scatter_reduce(0, batch.asker, at, "amax")
