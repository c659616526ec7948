"""How alike queries and keys are: the scores z_bi of eq. 13."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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


def root_scores(products: Tensor) -> Tensor:
    """Distances from products that are minus their squares: ``z = -sqrt(-t)``, and 0 where rounding has t above 0.

    Args:
        products: (B, M) t, as `dot_scores` of terms gives them.

    Returns:
        (B, M) scores, differentiable in ``products`` by `root_slopes`.

    >>> root_scores(torch.tensor([[-4.0, -9.0, 1e-7]]))
    tensor([[-2., -3., -0.]])
    """
    scores: Tensor = _RootScores.apply(products)
    return scores


def root_scores_(products: Tensor) -> Tensor:
    """The same in place, without gradient."""
    return products.neg_().clamp_(min=0).sqrt_().neg_()


def root_slopes(scores: Tensor, *, unit: float = 1.0) -> Tensor:
    """``dz/dt = 1 / (2 sqrt(-t)) = -1 / (2 z)`` of `root_scores`; 0 where z is 0, which has no slope.

    A distance grows by one for each one that a point moves away, also close by, where dz/dt is large: t has the slope
    ``2 d`` in the place of the point. At distance 0, from where every way leads up, 0 is the mean of all slopes.

    Args:
        scores: (B, M) z; minus infinity has slope 0.
        unit: nats are so many of what z is in.

    >>> root_slopes(torch.tensor([[-2.0, -0.0, -torch.inf]]))
    tensor([[0.2500, 0.0000, 0.0000]])
    """
    return scores.reciprocal().mul_(-unit / 2).nan_to_num_(nan=torch.nan, posinf=0.0, neginf=0.0)


class _RootScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, products: Tensor) -> Tensor:
        scores = root_scores_(products.clone())
        ctx.save_for_backward(scores)
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (scores,) = ctx.saved_tensors
        return root_slopes(scores).mul_(gradient)


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
