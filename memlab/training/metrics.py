"""What is measured: of the steps of an epoch in training; of all answers, whatever the batches, in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassCalibrationError

from memlab import functional

Reduce = Callable[[Tensor], Tensor]


FOR_ALL: dict[str, Any] = {"sync_on_compute": False}
"""Of several processes each measures the answers to all queries, so that there is nothing to put together."""


class StepFigures:
    """Means and maxima of the training steps of an epoch.

    Lightning's own logging takes as long at every step as a small encoder does. Nothing here waits for a GPU.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self._maxima: dict[str, Tensor] = {}
        self._marked = self._copies()

    def take(self, name: str, value: Tensor | float, *, weight: float = 1) -> None:
        """Take a figure of a step, whose mean over the steps is by weight; of one named ``..._max`` the largest."""
        value = torch.as_tensor(value).detach()
        if name.endswith("_max"):
            self._maxima[name] = torch.maximum(value, self._maxima.get(name, value))
        else:
            self._totals[name] = self._totals.get(name, 0) + value * weight
            self._weights[name] = self._weights.get(name, 0) + weight

    def mark(self) -> None:
        """Remember what there is now."""
        self._marked = self._copies()

    def back(self) -> None:
        """Forget what was taken since the mark."""
        self._totals, self._weights, self._maxima = self._marked
        self.mark()

    def _copies(self) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Tensor]]:
        return dict(self._totals), dict(self._weights), dict(self._maxima)  # of tensors that are never changed in place

    def close(self, add_up: Reduce, largest: Reduce) -> dict[str, Tensor]:
        """The figures since the last time, of all processes.

        Args:
            add_up: the sum of what all processes have.
            largest: the largest of it.
        """
        state = self.state(add_up, largest)
        totals, weights = state["totals"], state["weights"]
        found: dict[str, Tensor] = {name: totals[name] / weights[name] for name in totals} | state["maxima"]
        for part in (self._totals, self._weights, self._maxima):
            part.clear()
        return found

    def state(self, add_up: Reduce, largest: Reduce) -> dict[str, Any]:
        """Tensors and numbers to go on from within an epoch, of all processes; see `close`."""
        weights = {name: torch.tensor(weight, dtype=torch.float64) for name, weight in self._weights.items()}
        return {
            "totals": {name: add_up(total) for name, total in self._totals.items()},
            "weights": {name: float(add_up(weight)) for name, weight in weights.items()},
            "maxima": {name: largest(each) for name, each in self._maxima.items()},
        }

    def restore(self, state: dict[str, Any], device: torch.device, *, counts: bool) -> None:
        """Go on from a `state`, which is to count in one of the processes."""
        self._weights = {name: weight * counts for name, weight in state["weights"].items()}
        self._totals = {name: total.to(device) * counts for name, total in state["totals"].items()}
        self._maxima = {name: each.to(device) for name, each in state["maxima"].items()}


class ClassCounts(Metric):
    """Objects and answers of every class, from which figures by class are computed.

    Three vectors are held. What torchmetrics has for the same figures makes a (C, C) matrix of every batch.

    Args:
        num_classes: C.
    """

    full_state_update = False
    right: Tensor
    """(C,) objects of each class that were answered right."""
    objects: Tensor
    """(C,) objects of each class."""
    answers: Tensor
    """(C,) how often each class was answered."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(**FOR_ALL)
        for name in ("right", "objects", "answers"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, answers: Tensor, targets: Tensor) -> None:
        """Count the answers (B,), -1 for none, to objects of the true classes (B,)."""
        num_classes = len(self.objects)
        self.right += targets[answers == targets].bincount(minlength=num_classes)
        self.objects += targets.bincount(minlength=num_classes)
        self.answers += answers[answers >= 0].bincount(minlength=num_classes)


class BalancedAccuracy(ClassCounts):
    """See `memlab.functional.balanced_accuracy`."""

    def compute(self) -> Tensor:
        """The figure over all objects."""
        return functional.balanced_accuracy(self.right, self.objects)


class MacroF1(ClassCounts):
    """See `memlab.functional.macro_f1`."""

    def compute(self) -> Tensor:
        """The figure over all objects."""
        return functional.macro_f1(self.right, self.objects, self.answers)


class EvaluationMetrics(MetricCollection):
    """The figures of one evaluation, over its T objects with class mass ``y_tc``.

    ``accuracy``: share of the objects whose class has the largest mass.
    ``balanced_accuracy``: mean over the classes that have objects of the share of them that is answered right.
    ``f1_macro``: mean F1 over the classes that have objects or were answered.
    ``top5_accuracy``: share of the objects whose class is among the five of largest mass; for more than five classes.
    ``auroc``: probability that an object of class 1 has more mass of class 1 than an object of class 0, equal mass
    counting half; exact, for two classes alone.
    ``nll``: mean of `memlab.functional.nll`, nats.
    ``brier``: mean of `memlab.functional.brier`, from 0 to 2.
    ``ece``: expected calibration error, ``sum_i T_i / T |accuracy_i - confidence_i|`` over 15 bins i of the largest
    mass, which is the confidence.

    Args:
        num_classes: C.
        stage: stands before the names, as ``test`` in ``test/accuracy``.
    """

    def __init__(self, num_classes: int, stage: str) -> None:
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False, **FOR_ALL),
            "balanced_accuracy": BalancedAccuracy(num_classes),
            "f1_macro": MacroF1(num_classes),
            "nll": MeanMetric(**FOR_ALL),
            "brier": MeanMetric(**FOR_ALL),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, norm="l1", validate_args=False, **FOR_ALL),
        }
        if num_classes > 5:
            metrics["top5_accuracy"] = MeanMetric(**FOR_ALL)
        if num_classes == 2:
            metrics["auroc"] = BinaryAUROC(thresholds=None, validate_args=False, **FOR_ALL)
        super().__init__(metrics, prefix=f"{stage}/", compute_groups=False)

    def measure(self, read: functional.ClassRead, targets: Tensor) -> None:
        """Take what objects of the true classes (B,) have read."""
        log_mass = functional.class_log_mass(read.class_scores)
        mass, answers = log_mass.exp(), functional.answers(read.class_scores)
        arguments: dict[str, tuple[Any, ...]] = {
            **dict.fromkeys(["accuracy", "balanced_accuracy", "f1_macro"], (answers, targets)),
            "top5_accuracy": (functional.within_top(log_mass, targets, k=5).float(),),
            "auroc": (mass[:, -1], targets),  # of two classes, class 1
            "nll": (functional.nll(read.class_scores, targets, read.lowest),),
            "brier": (functional.brier(mass, targets),),
            "ece": (mass, targets),
        }
        for name, metric in self.items(keep_base=True):
            metric.update(*arguments[name])
