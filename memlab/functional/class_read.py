"""Reading: from scores to class scores, the log-sum-exp of the scores of each class (eqs. 13 and 15-17).

The fast form; `memlab.functional.definition` says the same in a line and is what it is tested against.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ClassRead(NamedTuple):
    """What queries have read of a support: all that answers, probabilities and the loss need."""

    class_scores: Tensor
    """(B, C) see `class_scores`."""
    lowest: Tensor
    """(B,) score of the farthest object that each query has read, without gradient; see `nll`."""


class ClassSums(NamedTuple):
    """Sums of exponentials by class over a part of the support; the running state of eqs. 15-16.

    The thesis keeps one maximum and one sum per query. Kept per class, as here, the sum of a class that lies far below
    the best one does not vanish, and its log-mass stays exact.
    """

    maximum: Tensor
    """(B, C) ``max_{i: y_i=c} z_bi``; the lowest finite number where the part has no object of the class, so that a
    difference of two maxima is never NaN."""
    total: Tensor
    """(B, C) ``sum_{i: y_i=c} exp(z_bi - maximum_bc)``; 0 where the part has no object of the class."""
    lowest: Tensor
    """(B,) ``min_i z_bi`` over the objects read; plus infinity where there is none."""


def lowest_scores(scores: Tensor) -> Tensor:
    """Score of the farthest object that each query reads: ``min_i z_bi`` where z_bi is finite.

    Args:
        scores: (B, M) scores; minus infinity for objects not to be read.

    Returns:
        (B,) lowest scores, without gradient; plus infinity for a query that reads nothing.

    >>> lowest_scores(torch.tensor([[3.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, -torch.inf]]))
    tensor([1., inf])
    """
    scores = scores.detach()
    lowest = scores.amin(-1)
    if scores.device.type == "cpu" and not lowest.isneginf().any():  # most often; a GPU is not to be waited for
        return lowest
    return scores.masked_fill(scores.isneginf(), torch.inf).amin(-1)


def class_sums(scores: Tensor, labels: Tensor, num_classes: int, *, spare: Tensor | None = None) -> ClassSums:
    """Maximum and sum of exponentials of every class (eqs. 15-16 by class).

    Args:
        scores: (B, M) scores.
        labels: (M,) class ids of the support objects, int64, from 0 to ``num_classes`` - 1.
        num_classes: C.
        spare: (M, B) memory to work in; None takes as much anew.
    """
    by_row = scores.mT  # (M, B)
    shape = (num_classes, by_row.shape[1])
    index = labels[:, None].expand_as(by_row)
    maximum = by_row.new_full(shape, _least(scores)).scatter_reduce_(0, index, by_row, "amax")
    spare = torch.index_select(maximum, 0, labels, out=spare)
    exponentials = _exp_(torch.sub(by_row, spare, out=spare))
    total = by_row.new_zeros(shape).index_add_(0, labels, exponentials)
    return ClassSums(maximum.mT, total.mT, lowest_scores(scores))


def merge_class_sums(first: ClassSums, second: ClassSums) -> ClassSums:
    """The sums of two disjoint parts of a support taken together; associative and commutative up to rounding.

    ``maximum = max(m1, m2)``, ``total = t1 exp(m1 - maximum) + t2 exp(m2 - maximum)``, ``lowest = min(l1, l2)``.
    """
    maximum = torch.maximum(first.maximum, second.maximum)
    total = _exp_(first.maximum - maximum).mul_(first.total)
    total.add_(_exp_(second.maximum - maximum).mul_(second.total))
    return ClassSums(maximum, total, torch.minimum(first.lowest, second.lowest))


def read_of_sums(sums: ClassSums) -> ClassRead:
    """Class scores ``log sum_{i: y_i=c} exp(z_bi)`` from running sums; minus infinity for a class with no object."""
    return ClassRead(sums.maximum + sums.total.log(), sums.lowest)


def read_cells(scores: Tensor, labels: Tensor, num_classes: int) -> ClassRead:
    """Class scores where every query has read cells of its own; see `class_scores`.

    Args:
        scores: (B, K) scores of the cells that each query reads; minus infinity where it has read fewer.
        labels: (B, K) their class ids.
        num_classes: C.

    Returns:
        class scores, minus infinity for a class with no cell, and the lowest scores.

    >>> read_cells(torch.tensor([[0.0, 0.0], [5.0, 7.0]]), torch.tensor([[1, 1], [0, 2]]), num_classes=3).class_scores
    tensor([[ -inf, 0.6931, -inf],
            [5.0000, -inf, 7.0000]])
    """
    shape = (len(scores), num_classes)
    maximum = scores.new_full(shape, _least(scores)).scatter_reduce(1, labels, scores, "amax")
    exponentials = (scores - maximum.gather(1, labels)).exp()
    total = scores.new_zeros(shape).scatter_add(1, labels, exponentials)
    return read_of_sums(ClassSums(maximum, total, lowest_scores(scores)))


def class_scores(scores: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Log-sum-exp of the scores of every class: ``s_bc = log sum_{i: y_i=c} exp(z_bi)``.

    Class scores are to the read what logits are to a softmax layer: ``log_softmax`` over the classes gives the log of
    the class mass of eq. 13, because the sum over all objects is the sum of the sums over the classes.

    Args:
        scores: (B, M) scores; minus infinity for objects not to be read.
        labels: (M,) class ids of the support objects, int64, from 0 to ``num_classes`` - 1.
        num_classes: C.

    Returns:
        (B, C) class scores, differentiable in ``scores``; minus infinity for a class with no object to read.

    >>> class_scores(torch.tensor([[0.0, 0.0, 1000.0]]), torch.tensor([0, 0, 2]), num_classes=3)
    tensor([[6.9315e-01,       -inf, 1.0000e+03]])
    """
    result: Tensor = _ClassScores.apply(scores, labels, num_classes)
    return result


def class_scores_gradient(
    scores: Tensor, labels: Tensor, class_scores: Tensor, gradient: Tensor, *, spare: Tensor | None = None
) -> Tensor:
    """Gradient with respect to the scores of a part of the support, given the class scores of the whole (eq. 17).

    ``dL/dz_bi = dL/ds_bc exp(z_bi - s_bc)`` with ``c = y_i``. With the loss of eq. 13 this is the thesis's
    ``exp(z_i - max) / Z`` less the same taken over the query's own class.

    Args:
        scores: (B, m) scores of the part.
        labels: (m,) class ids of the part.
        class_scores: (B, C) class scores over the whole support.
        gradient: (B, C) gradient of the loss with respect to the class scores.
        spare: (m, B) memory for the result, and leave to overwrite the scores; None takes twice as much anew.

    Returns:
        (B, m) gradient of the loss with respect to the scores.
    """
    # A class with no object has minus infinity here, and minus infinity less itself would be NaN.
    finite = class_scores.mT.clamp(min=_least(scores))  # (C, B)
    used_up = None if spare is None else scores.mT
    spare = torch.index_select(finite, 0, labels, out=spare)
    shares = _exp_(torch.sub(scores.mT, spare, out=spare))  # (m, B), of each object in its class
    return shares.mul_(torch.index_select(gradient.mT, 0, labels, out=used_up)).mT


class _ClassScores(torch.autograd.Function):
    """Two small formulas in place of autograd's chain, which would hold three more (B, M) matrices."""

    @staticmethod
    def forward(scores: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        return read_of_sums(class_sums(scores, labels, num_classes)).class_scores

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        scores, labels, _ = inputs
        ctx.save_for_backward(scores, labels, output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        scores, labels, output = ctx.saved_tensors
        return class_scores_gradient(scores, labels, output, gradient), None, None


def read(scores: Tensor, labels: Tensor, num_classes: int) -> ClassRead:
    """Read objects that all queries share; see `class_scores` and `lowest_scores`."""
    return ClassRead(class_scores(scores, labels, num_classes), lowest_scores(scores))


LOG2_E = math.log2(math.e)


def _exp_(tensor: Tensor) -> Tensor:
    """Exponential in place. On a CPU torch's exp2 is nearly three times as fast as its exp, and as exact."""
    return tensor.mul_(LOG2_E).exp2_() if tensor.device.type == "cpu" else tensor.exp_()


def _least(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).min
