"""How alike queries and keys are: the scores z_bi of eq. 13."""

from __future__ import annotations

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
