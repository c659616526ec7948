"""From class scores to probabilities, answers and the training loss (eq. 13)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memlab.functional.class_read import power_


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
    proportion to its weight, and none, as the farthest, is pulled. Where the scale of the scores is learned,
    ``min_i z_bi`` must follow it (`memlab.memory.similarity.Similarity.rescaled`): the stand-in is at a constant place,
    not at a constant score, or a scale that grows would look as if all that was read had moved away. (A query that has
    read nothing at all has the loss of an even guess, log C, and no gradient.)

    Args:
        class_scores: (B, C) class scores.
        targets: (B,) true class ids, int64.
        lowest: (B,) score of the farthest object read, with no gradient but the scale's; None where no class
            can be absent, or where the floor alone is to tell of absence.

    Returns:
        (B,) losses in nats.

    >>> nll(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([0]))
    tensor([0.6931])
    >>> absent = torch.tensor([[5.0, 5.0, -torch.inf]]), torch.tensor([2])
    >>> nll(*absent, lowest=torch.tensor([5.0])), nll(*absent, lowest=torch.tensor([-5.0]))
    (tensor([6.9078]), tensor([10.6932]))
    """
    num_classes = class_scores.shape[-1]
    return own_nll(own_read(class_scores, targets, lowest), num_classes=num_classes)


class OwnRead(NamedTuple):
    """What queries have read of their own class and of all: all that the loss and the figures of training need."""

    log_mass: Tensor
    """(B,) log of the mass of the true class; minus infinity where nothing read is of it."""
    total: Tensor
    """(B,) ``log sum_i exp(z_bi)``; minus infinity for a query that has read nothing."""
    right: Tensor
    """(B,) whether the true class was read and is the answer."""
    lowest: Tensor | None
    """(B,) see `nll`."""


def own_read(class_scores: Tensor, targets: Tensor, lowest: Tensor | None = None) -> OwnRead:
    """Reduce class scores to what concerns the true class.

    Args:
        class_scores: (B, C) class scores.
        targets: (B,) true class ids, int64; -1 for a class that is not among the C.
        lowest: (B,) see `nll`.

    >>> own_read(torch.tensor([[0.0, 1.0, -torch.inf]] * 2), torch.tensor([1, 2]))[:3]
    (tensor([-0.3133,    -inf]), tensor([1.3133, 1.3133]), tensor([ True, False]))
    """
    log_mass, total, right = _OwnRead.apply(class_scores, targets)
    return OwnRead(log_mass, total, right, lowest)


def own_nll(read: OwnRead, *, num_classes: int) -> Tensor:
    """(B,) losses of `nll`, from what was read of the true class.

    Args:
        read: what was read.
        num_classes: C.
    """
    nothing = read.total.isneginf()
    total = read.total.masked_fill(nothing, 0)
    stand_in = total.detach() + math.log(ABSENT_MASS / (1 - ABSENT_MASS))
    if read.lowest is not None:
        stand_in = torch.minimum(stand_in, read.lowest)
    of_stand_in = torch.logaddexp(total - stand_in, torch.zeros_like(total))
    losses = torch.where(read.log_mass.isneginf(), of_stand_in, -read.log_mass)
    return losses.masked_fill(nothing, math.log(num_classes))


class _OwnRead(torch.autograd.Function):
    """A few passes over the (B, C) class scores, where there may be more classes than objects were read."""

    @staticmethod
    def forward(ctx: Any, class_scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best, answers = class_scores.max(-1)
        finite = best.clamp(min=torch.finfo(best.dtype).min)
        masses = power_(math.e, class_scores - finite[:, None])
        sums = masses.sum(-1)
        near = targets.clamp(min=0)[:, None]
        own = class_scores.gather(-1, near).squeeze(-1).masked_fill(targets < 0, -torch.inf)
        log_mass = (own - finite - sums.log()).masked_fill(own.isneginf(), -torch.inf)
        right = (answers == targets) & own.isfinite()
        ctx.mark_non_differentiable(right)
        ctx.save_for_backward(masses, sums, near)
        return log_mass, finite + sums.log(), right

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_log_mass: Tensor, of_total: Tensor, _: Tensor) -> tuple[Tensor, None]:
        masses, sums, near = ctx.saved_tensors
        of_share = ((of_total - of_log_mass) / sums).masked_fill(sums == 0, 0)
        gradient = masses * of_share[:, None]
        return gradient.scatter_add_(-1, near, of_log_mass[:, None]), None


def _read_nothing(class_scores: Tensor) -> Tensor:
    """(B, 1) true where a query has read nothing."""
    return class_scores.isneginf().all(-1, keepdim=True)
