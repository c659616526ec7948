"""Reading: from scores to class scores, the log-sum-exp of the scores of each class (eqs. 13 and 15-17).

The fast form; `memlab.functional.definition` says the same in a line and is what it is tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memlab.functional.runs import Runs


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
    if not scores.shape[-1]:
        return scores.new_full(scores.shape[:-1], torch.inf)
    if scores.device.type == "cpu" and not (lowest := scores.amin(-1)).isneginf().any():
        return lowest  # most often; a GPU is not to be waited for
    return scores.nan_to_num(nan=torch.nan, posinf=torch.inf, neginf=torch.inf).amin(-1)


class ClassSums:
    """Sums of exponentials by class over what has been read so far: the running state of eqs. 15-16.

    The thesis keeps one maximum and one sum per query. Kept per class, as here, the sum of a class that lies far below
    the best one does not vanish, and its log-mass stays exact. Scores that are bounded (see `are_bounded`) need no
    maximum. Objects sorted by class are read fastest: those of a class are summed where they lie, and of the state
    the classes between the first and the last of a part are touched and no other.

    Args:
        num_classes: C.
        like: (B, m) scores of a part, for their number, type and device.
        base: of the exponentials, e or 2: scores are in nats or in bits.
        bounded: whether `are_bounded` holds of all scores to come.
    """

    maximum: Tensor | None
    """(C, B) ``max_{i: y_i=c} z_bi``; the lowest finite number where no object of the class has been read, so that a
    difference of two maxima is never NaN. None, for 0, where scores are bounded."""
    total: Tensor
    """(C, B) ``sum_{i: y_i=c} base ** (z_bi - maximum_cb)``; 0 where no object of the class has been read."""

    def __init__(self, num_classes: int, *, like: Tensor, base: float = math.e, bounded: bool = False) -> None:
        shape = (num_classes, len(like))
        self.base = base
        self.maximum = None if bounded else like.new_full(shape, _least(like))
        self.total = like.new_zeros(shape)
        self._lowest = like.new_full(shape[1:], torch.inf)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, scores: Tensor, labels: Tensor, *, spare: Tensor | None = None, counts: Tensor | None = None) -> None:
        """Read one more part of the support.

        Args:
            scores: (B, m) scores of the part.
            labels: (m,) class ids of the part, int64, from 0 to C - 1.
            spare: (m, B) memory to work in, and leave to overwrite the scores; None takes as much anew.
            counts: (C,) how many objects of the part are in each class if they are sorted by class, or None.
        """
        if not scores.shape[1]:
            return
        if scores.device.type == "cuda" and spare is None:  # small parts are not worth the launches
            self._waiting.append((scores, labels))
            if sum(each.numel() for each, _ in self._waiting) >= ENOUGH:
                self._add_waiting()
            return
        self._add(scores, labels, spare, counts)

    def _add_waiting(self) -> None:
        if self._waiting:
            scores, labels = zip(*self._waiting, strict=True)
            self._waiting = []
            self._add(torch.cat(scores, dim=1), torch.cat(labels), None, None)

    def _add(self, scores: Tensor, labels: Tensor, spare: Tensor | None, counts: Tensor | None) -> None:
        torch.minimum(self._lowest, lowest_scores(scores), out=self._lowest)
        by_row = scores.mT  # (m, B)
        if scores.device.type == "cuda":
            runs = Runs(labels, len(self.total), counts)
            self._add_runs(runs.sorted(by_row), runs.labels, runs.reduced)
            return
        if counts is not None and len(scores) == 1 and scores.device.type == "cpu":
            self._add_runs(by_row, labels, partial(_of_runs, counts))
            return
        classes, place = _span(labels, len(self.total))
        index = place[:, None].expand_as(by_row)
        total = self.total[classes]
        if self.maximum is None:
            exponentials = power_(self.base, by_row.clone() if spare is None else by_row)
        else:
            maximum = self.maximum[classes]
            before = maximum.clone()
            maximum.scatter_reduce_(0, index, by_row, "amax")
            total.mul_(power_(self.base, before.sub_(maximum)))
            spare = torch.index_select(maximum, 0, place, out=spare)
            exponentials = power_(self.base, torch.sub(by_row, spare, out=spare))
        total.scatter_add_(0, index, exponentials)

    def _add_runs(self, by_row: Tensor, labels: Tensor, reduced: Callable[..., Tensor]) -> None:
        """Read a part that is sorted by class, by sums of neighbours.

        On a GPU they are the same every time, and fast (`memlab.functional.runs`); on a CPU they are fastest for one
        query alone, whose scores of a class are neighbours in memory.
        """
        if self.maximum is None:
            exponentials = power_(self.base, by_row.clone())
        else:
            before, highest = self.maximum, reduced(by_row, "max", empty=-torch.inf)
            self.maximum = torch.maximum(before, highest)
            self.total.mul_(power_(self.base, before - self.maximum))
            exponentials = power_(self.base, by_row - self.maximum.index_select(0, labels))
        self.total.add_(reduced(exponentials, "sum", empty=0.0))

    def class_scores(self) -> Tensor:
        """(B, C) ``log sum_{i: y_i=c} base ** z_bi`` to the base; minus infinity for a class with no object."""
        self._add_waiting()
        logs = self.total.log2() if self.base == 2 else self.total.log()
        return (logs if self.maximum is None else logs.add_(self.maximum)).mT

    @property
    def lowest(self) -> Tensor:
        """(B,) ``min_i z_bi`` over the objects read; plus infinity where there is none."""
        self._add_waiting()
        return self._lowest


ENOUGH = 2**22
"""Scores that a GPU sums at a time, 16 MiB: parts wait until there are so many."""

SAFE_SCORE = 64.0
"""Nats: the exponential of a score of this size, either way, is far from the limits of float32, and so is the sum of
as many as there can be."""


def are_bounded(bound: float | None) -> bool:
    """Whether exponentials of scores up to ``bound`` in size may be summed as they are, without taking a maximum.

    Args:
        bound: nats; None for scores of any size.
    """
    return bound is not None and bound <= SAFE_SCORE


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
    return ClassRead(_ReadCells.apply(scores, labels, num_classes), lowest_scores(scores))


class _ReadCells(torch.autograd.Function):
    """The formulas of `_Read`, with the labels of each query's own cells."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        queries = len(scores)
        # Of each query the classes are told apart from those of all others: one column of B K cells in B C classes.
        apart = labels + torch.arange(queries, device=labels.device)[:, None] * num_classes
        in_one = scores.reshape(1, -1)
        sums = ClassSums(queries * num_classes, like=in_one)
        sums.add(in_one, apart.flatten())
        class_scores = sums.class_scores().view(queries, num_classes)
        ctx.save_for_backward(scores, labels, class_scores)
        return class_scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, labels, class_scores = ctx.saved_tensors
        finite = class_scores.clamp(min=_least(scores)).gather(1, labels)
        return power_(math.e, scores - finite).mul_(gradient.gather(1, labels)), None, None


def class_scores(scores: Tensor, labels: Tensor, num_classes: int, *, bounded: bool = False) -> Tensor:
    """Log-sum-exp of the scores of every class: ``s_bc = log sum_{i: y_i=c} exp(z_bi)``.

    Class scores are to the read what logits are to a softmax layer: ``log_softmax`` over the classes gives the log of
    the class mass of eq. 13, because the sum over all objects is the sum of the sums over the classes.

    Args:
        scores: (B, M) scores; minus infinity for objects not to be read.
        labels: (M,) class ids of the support objects, int64, from 0 to ``num_classes`` - 1; sorted is fastest.
        num_classes: C.
        bounded: whether `are_bounded` holds of the scores.

    Returns:
        (B, C) class scores, differentiable in ``scores``; minus infinity for a class with no object to read.

    >>> class_scores(torch.tensor([[0.0, 0.0, 1000.0]]), torch.tensor([0, 0, 2]), num_classes=3)
    tensor([[6.9315e-01,       -inf, 1.0000e+03]])
    """
    return read(scores, labels, num_classes, bounded=bounded).class_scores


def class_scores_gradient(
    scores: Tensor,
    labels: Tensor,
    class_scores: Tensor,
    gradient: Tensor,
    *,
    base: float = math.e,
    bounded: bool = False,
    spare: Tensor | None = None,
) -> Tensor:
    """Gradient with respect to the scores of a part of the support, given the class scores of the whole (eq. 17).

    ``dL/dz_bi = dL/ds_bc base ** (z_bi - s_bc)`` with ``c = y_i``, z and s to the base. With the loss of eq. 13 this is
    the thesis's ``exp(z_i - max) / Z`` less the same taken over the query's own class.

    Args:
        scores: (B, m) scores of the part.
        labels: (m,) class ids of the part.
        class_scores: (B, C) class scores over the whole support, to the base.
        gradient: (B, C) gradient of the loss with respect to the class scores in nats.
        base: of the exponentials, e or 2; see `ClassSums`.
        bounded: whether `are_bounded` holds of the scores.
        spare: (m, B) memory to work in, and leave to overwrite the scores; None takes twice as much anew.

    Returns:
        (B, m) gradient of the loss with respect to the scores in nats.
    """
    by_row = scores.mT  # (m, B)
    classes, place = _span(labels, class_scores.shape[1])
    # A class with no object has minus infinity here, and minus infinity less itself would be NaN.
    least = -1.1 * SAFE_SCORE / math.log(base) if bounded else _least(scores)
    finite = class_scores.mT[classes].clamp(min=least)  # (C', B)
    gradient = gradient.mT[classes]
    if bounded:
        factors = power_(base, finite.neg_()).mul_(gradient)
        exponentials = power_(base, by_row.clone() if spare is None else by_row)
        return exponentials.mul_(torch.index_select(factors, 0, place, out=spare)).mT
    used_up = None if spare is None else by_row
    spare = torch.index_select(finite, 0, place, out=spare)
    shares = power_(base, torch.sub(by_row, spare, out=spare))  # (m, B), of each object in its class
    return shares.mul_(torch.index_select(gradient, 0, place, out=used_up)).mT


def read(scores: Tensor, labels: Tensor, num_classes: int, *, bounded: bool = False) -> ClassRead:
    """Read objects that all queries share; see `class_scores` and `lowest_scores`."""
    return ClassRead(*_Read.apply(scores, labels, num_classes, bounded))


class _Read(torch.autograd.Function):
    """Two small formulas in place of autograd's chain, which would hold three more (B, M) matrices."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, num_classes: int, bounded: bool) -> tuple[Tensor, Tensor]:
        sums = ClassSums(num_classes, like=scores, bounded=bounded)
        sums.add(scores, labels)
        class_scores = sums.class_scores()
        ctx.bounded = bounded
        ctx.save_for_backward(scores, labels, class_scores)
        ctx.mark_non_differentiable(sums.lowest)
        return class_scores, sums.lowest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scores, labels, class_scores = ctx.saved_tensors
        return class_scores_gradient(scores, labels, class_scores, gradient, bounded=ctx.bounded), None, None, None


def _of_runs(counts: Tensor, rows: Tensor, how: str, *, empty: float) -> Tensor:
    """As `Runs.reduced`, each run by itself."""
    return torch.segment_reduce(rows, how, lengths=counts, axis=0, initial=empty, unsafe=True)


def _span(labels: Tensor, num_classes: int) -> tuple[slice, Tensor]:
    """The classes from the first to the last of a part, and (m,) the place of each label among them.

    Of a part of a sorted support they are few. A GPU is not waited for to tell which: there, all classes.
    """
    if labels.device.type != "cpu" or not len(labels):
        return slice(0, num_classes), labels
    first, last = (int(label) for label in labels.aminmax())
    return slice(first, last + 1), labels - first if first else labels


LOG2_E = math.log2(math.e)


def power_(base: float, exponents: Tensor) -> Tensor:
    """``base ** exponents`` in place, of base e or 2.

    On a CPU torch's exp2 is nearly three times as fast as its exp, and as exact.
    """
    if base == 2:
        return exponents.exp2_()
    return exponents.mul_(LOG2_E).exp2_() if exponents.device.type == "cpu" else exponents.exp_()


def _least(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).min
