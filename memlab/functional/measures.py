"""What is measured of the answers, beside the loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def brier(mass: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the class mass from certainty of the true class: ``sum_c (y_bc - [c = t])^2``.

    From 0 to 2 (Brier, "Verification of forecasts expressed in terms of probability", 1950).

    Args:
        mass: (B, C) class mass.
        targets: (B,) true class ids, int64.

    Returns:
        (B,) scores.

    >>> import torch
    >>> brier(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([1, 0]))
    tensor([2.0000, 0.5000])
    """
    return (mass - F.one_hot(targets, mass.shape[-1])).square().sum(-1)


def own_margin(class_scores: Tensor, labels: Tensor) -> Tensor:
    """How much the own class stands out: ``s_by - max over c != y of s_bc``, the log odds to the best of the others.

    Unlike the own mass it does not depend on a temperature, and tells apart objects whose own mass is next to nothing.

    Args:
        class_scores: (B, C) log-sum-exp of the scores of each class, C at least 2.
        labels: (B,) own class ids, int64.

    Returns:
        (B,) nats; -inf if nothing of the own class was read, inf if nothing else was.

    >>> import torch
    >>> own_margin(torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([0, 1]))
    tensor([ 1., -2.])
    """
    own = class_scores.gather(-1, labels[:, None])
    return own[:, 0] - class_scores.scatter(-1, labels[:, None], -torch.inf).amax(-1)


def within_top(log_mass: Tensor, targets: Tensor, *, k: int) -> Tensor:
    """True where at most k classes have as much mass as the true class, itself among them.

    Of classes with equal mass none comes before another, so that one without mass is never among the first k < C.

    Args:
        log_mass: (B, C) log of the class mass.
        targets: (B,) true class ids, int64.
        k: how many.

    >>> import torch
    >>> within_top(torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 1.0]]), torch.tensor([1, 1]), k=2)
    tensor([ True, False])
    """
    return (log_mass >= log_mass.gather(-1, targets[:, None])).sum(-1) <= k


def balanced_accuracy(right: Tensor, objects: Tensor) -> Tensor:
    """Mean recall: the mean of ``right_c / objects_c`` over the classes that have objects.

    Args:
        right: (C,) objects of each class that were answered right.
        objects: (C,) objects of each class.

    >>> import torch
    >>> balanced_accuracy(torch.tensor([3, 0, 0]), torch.tensor([4, 1, 0]))
    tensor(0.3750)
    """
    there = objects > 0
    return (right[there] / objects[there]).mean()


def macro_f1(right: Tensor, objects: Tensor, answers: Tensor) -> Tensor:
    """Mean of ``2 right_c / (objects_c + answers_c)`` over the classes that have objects or were answered.

    The F1 of a class is the harmonic mean of its recall ``right_c / objects_c`` and its precision
    ``right_c / answers_c``.

    Args:
        right: (C,) objects of each class that were answered right.
        objects: (C,) objects of each class.
        answers: (C,) how often each class was answered.

    >>> import torch
    >>> macro_f1(torch.tensor([3, 0, 0]), torch.tensor([4, 1, 0]), torch.tensor([5, 0, 0]))
    tensor(0.3333)
    """
    there = objects + answers > 0
    return (2 * right[there] / (objects + answers)[there]).mean()
