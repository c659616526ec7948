"""The equations of the classifier, in the thesis's order. Tensors in, tensors out.

Shape legend: B queries, M support objects, D embedding size, C classes.

Source: V. Nikolaev, "Differentiable metric methods based on memory models" (thesis, Moscow State University, 2017);
equation numbers are the thesis's.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Scores are computed as keys @ query^T and seen transposed: they read (B, M) but lie in memory support-major, so that
# sums over the objects of a class add whole rows. On a CPU that is several times faster than adding columns.


def dot_scores(query: Tensor, keys: Tensor) -> Tensor:
    """Dot product of every query with every key: ``z_bi = u_b . m_i`` (eq. 13).

    Args:
        query: (B, D) encoded queries.
        keys: (M, D) encoded support objects.

    Returns:
        (B, M) scores.

    >>> dot_scores(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[11.,  2.]])
    """
    return (keys @ query.mT).mT


def exclude_rows(scores: Tensor, ids: Tensor, exclude: Tensor) -> Tensor:
    """Give the score minus infinity to the support object that a query must not read: its own row.

    Args:
        scores: (B, M) scores.
        ids: (M,) which training object each support object is.
        exclude: (B,) the id each query must not read; an id that no support object has excludes nothing.

    Returns:
        (B, M) scores.

    >>> exclude_rows(torch.zeros(2, 3), ids=torch.tensor([7, 8, 9]), exclude=torch.tensor([8, -1]))
    tensor([[0., -inf, 0.],
            [0., 0., 0.]])
    """
    return scores.masked_fill((ids[:, None] == exclude[None, :]).mT, -torch.inf)


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


class ClassRead(NamedTuple):
    """What queries have read of a support: all that answers, probabilities and the loss need."""

    class_scores: Tensor
    """(B, C) see `class_scores`."""
    lowest: Tensor
    """(B,) score of the farthest object that each query has read, without gradient; see `nll`."""


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


def class_log_mass(class_scores: Tensor) -> Tensor:
    """Log of the class mass: ``log y_bc = s_bc - log sum_c' exp(s_bc')`` (eq. 13 and the line after it).

    A query that has read nothing knows nothing: every class has mass ``1 / C``, without gradient.

    Args:
        class_scores: (B, C) class scores.

    Returns:
        (B, C) log-probabilities; minus infinity for a class with no support object.

    >>> class_log_mass(torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])).exp()
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    return class_scores.masked_fill(_read_nothing(class_scores), 0).log_softmax(-1)


def answers(class_scores: Tensor) -> Tensor:
    """(B,) the class with the largest mass; -1, no class, for a query that has read nothing.

    >>> answers(torch.tensor([[0.0, 1.0], [-torch.inf, -torch.inf]]))
    tensor([ 1, -1])
    """
    return class_scores.argmax(-1).masked_fill(_read_nothing(class_scores)[:, 0], -1)


ABSENT_MASS = 1e-3
"""Largest mass that the loss gives a class that nothing read belongs to."""


def nll(class_scores: Tensor, targets: Tensor, lowest: Tensor | None = None) -> Tensor:
    """Negative log mass of the true class, finite also when nothing read is of it.

    ``loss_b = log sum_c exp(s_bc) - s_bt`` for a query of class t (the thesis's training loss). When the query has read
    no object of class t, one is put in its place that lies as far away as the farthest object read, or so far that the
    class has mass ``e = ABSENT_MASS``, whichever is farther:

    ``s_bt = min(min_i z_bi, log(e / (1 - e)) + log sum_i exp(z_bi))``, taken as a constant.

    The reason is that absence must never be cheaper than presence. Of the K nearest cells the farthest bounds what was
    not read: the best cell of class t has at most its score, so that a loss below ``log sum_i exp(z_bi) - min_i z_bi``
    would be lower than that of a query whose own class was found, as the K-th and last. The same holds of a random
    support that lacks the class, which is a read of all its objects: absent costs at least as much as present and
    farthest, and K = M gives what reading everything gives. Where scores hardly differ, the farthest object has about
    an equal share, and the floor e tells that being absent is no near miss.

    The gradient is ``(1 - y_bt) p_bi`` with the mass ``y_bt <= e`` of the stand-in: every object read is pushed away in
    proportion to its weight, and none, as the farthest, is pulled. (A query that has read nothing at all has the loss
    of an even guess, log C, and no gradient.)

    Args:
        class_scores: (B, C) class scores.
        targets: (B,) true class ids, int64.
        lowest: (B,) score of the farthest object read, see `ClassRead`; None where no class can be absent, or where
            the floor alone is to tell of absence.

    Returns:
        (B,) losses in nats.

    >>> nll(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([0]))
    tensor([0.6931])
    >>> absent = torch.tensor([[5.0, 5.0, -torch.inf]]), torch.tensor([2])
    >>> nll(*absent, lowest=torch.tensor([5.0])), nll(*absent, lowest=torch.tensor([-5.0]))
    (tensor([6.9078]), tensor([10.6932]))
    """
    own = F.one_hot(targets, class_scores.shape[-1]).bool()
    known = class_scores.masked_fill(_read_nothing(class_scores), 0)
    stand_in = known.detach().logsumexp(-1) + math.log(ABSENT_MASS / (1 - ABSENT_MASS))
    if lowest is not None:
        stand_in = torch.minimum(stand_in, lowest)
    filled = torch.where(own & known.isneginf(), stand_in[:, None], known)
    return F.cross_entropy(filled, targets, reduction="none")


def _read_nothing(class_scores: Tensor) -> Tensor:
    """(B, 1) true where a query has read nothing."""
    return class_scores.isneginf().all(-1, keepdim=True)


def absent_class(class_scores: Tensor, targets: Tensor) -> Tensor:
    """(B,) true where the support had no object of the query's class.

    >>> absent_class(torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]]), torch.tensor([0, 1]))
    tensor([False,  True])
    """
    return class_scores.gather(-1, targets[:, None]).squeeze(-1).isneginf()


def brier(mass: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the class mass from certainty of the true class: ``sum_c (y_bc - [c = t])^2``.

    From 0 to 2 (Brier, "Verification of forecasts expressed in terms of probability", 1950).

    Args:
        mass: (B, C) class mass.
        targets: (B,) true class ids, int64.

    Returns:
        (B,) scores.

    >>> brier(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([1, 0]))
    tensor([2.0000, 0.5000])
    """
    return (mass - F.one_hot(targets, mass.shape[-1])).square().sum(-1)


def within_top(log_mass: Tensor, targets: Tensor, *, k: int) -> Tensor:
    """True where at most k classes have as much mass as the true class, itself among them.

    Of classes with equal mass none comes before another, so that one without mass is never among the first k < C.

    Args:
        log_mass: (B, C) log of the class mass.
        targets: (B,) true class ids, int64.
        k: how many.

    >>> within_top(torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 1.0]]), torch.tensor([1, 1]), k=2)
    tensor([ True, False])
    """
    return (log_mass >= log_mass.gather(-1, targets[:, None])).sum(-1) <= k


def balanced_accuracy(right: Tensor, objects: Tensor) -> Tensor:
    """Mean recall: the mean of ``right_c / objects_c`` over the classes that have objects.

    Args:
        right: (C,) objects of each class that were answered right.
        objects: (C,) objects of each class.

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

    >>> macro_f1(torch.tensor([3, 0, 0]), torch.tensor([4, 1, 0]), torch.tensor([5, 0, 0]))
    tensor(0.3333)
    """
    there = objects + answers > 0
    return (2 * right[there] / (objects + answers)[there]).mean()


LOG2_E = math.log2(math.e)


def _exp_(tensor: Tensor) -> Tensor:
    """Exponential in place. On a CPU torch's exp2 is nearly three times as fast as its exp, and as exact."""
    return tensor.mul_(LOG2_E).exp2_() if tensor.device.type == "cpu" else tensor.exp_()


def _least(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).min
