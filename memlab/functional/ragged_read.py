"""The value read where each query has a memory of its own, of whatever size.

*Cells* of all queries lie one after the other, those of a query together: P of them, ``asker`` tells whose each is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ragged_softmax(scores: Tensor, asker: Tensor, queries: int, empty: Tensor | None = None) -> Tensor:
    """Softmax over the cells of each query: ``p_i = exp(z_i - max) / Z`` with maximum and Z of the cells of its query.

    Args:
        scores: (P,) scores.
        asker: (P,) whose cell each is, int64, from 0 to ``queries`` - 1.
        queries: Q.
        empty: (Q,) how many cells of score 0 each query has besides; None for none.

    Returns:
        (P,) weights, differentiable in ``scores``; those of a query add up to 1, with what its empty cells weigh.

    >>> ragged_softmax(torch.tensor([1.0, 1.0, 500.0]), torch.tensor([0, 0, 1]), queries=2)
    tensor([0.5000, 0.5000, 1.0000])
    >>> ragged_softmax(torch.zeros(2), torch.tensor([0, 0]), queries=1, empty=torch.tensor([2]))
    tensor([0.2500, 0.2500])
    """
    lowest = -torch.inf if empty is None else 0.0
    highest = scores.detach().new_full((queries,), lowest).scatter_reduce(0, asker, scores.detach(), "amax")
    exponentials = (scores - highest[asker]).exp()
    total = exponentials.new_zeros(queries).index_add(0, asker, exponentials)
    if empty is not None:
        total = total + empty * (-highest).exp()
    return exponentials / total[asker]


def ragged_sums(weights: Tensor, values: Tensor, asker: Tensor, queries: int) -> Tensor:
    """What each query reads: ``o_q = sum_i p_i v_i`` over its cells (eq. 8 of the thesis).

    Args:
        weights: (P,) p.
        values: (P, d) v.
        asker: (P,) whose cell each is.
        queries: Q.

    Returns:
        (Q, d), differentiable in weights and values; 0 for a query without cells.

    >>> ragged_sums(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([[2.0], [4.0], [7.0]]), torch.tensor([0, 0, 1]), 3)
    tensor([[3.],
            [7.],
            [0.]])
    """
    return values.new_zeros(queries, values.shape[1]).index_add(0, asker, weights[:, None] * values)
