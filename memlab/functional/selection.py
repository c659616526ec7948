"""Few objects that stand for many: how many of each class, and which."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def greedy_medoids(
    distances: Tensor, nearest: Tensor, count: int, *, least: float = -math.inf
) -> tuple[Tensor, Tensor]:
    """Objects one by one, each that which brings down ``sum_i min_s d(i, s)`` over the chosen s by the most.

    The sum by which it goes down is a submodular function of what is chosen: the greedy choice has at least 1 - 1/e of
    what the best choice of as many has (Nemhauser, Wolsey and Fisher 1978), and each object gains no more than the one
    before it.

    Args:
        distances: (N, N) d of two objects, symmetric, 0 of an object and itself.
        nearest: (N,) ``min_s d(i, s)`` over what is chosen already.
        count: how many to choose, at most N.
        least: no object that gains as little as this is chosen.

    Returns:
        (n,) objects, first to last, and (n,) what each gained in float64.

    >>> points = torch.tensor([0.0, 5.0, 5.1, 5.3])
    >>> distances = (points[:, None] - points).square()
    >>> greedy_medoids(distances, distances[0], 2)[0].tolist()
    [2, 3]
    """
    nearest, gains = nearest.clone(), _gains(distances, nearest)
    chosen: list[int] = []
    gained: list[float] = []
    while len(chosen) < count:
        best = int(gains.argmax())
        if not float(gains[best]) > least:
            break
        chosen.append(best)
        gained.append(float(gains[best]))
        nearer = (distances[best] < nearest).nonzero().flatten()  # the gains of the others change through these alone
        rows = distances[nearer]
        gains -= _gains(rows, nearest[nearer])
        nearest[nearer] = distances[best, nearer]
        gains += _gains(rows, nearest[nearer])
        gains[best] = -torch.inf
    return torch.tensor(chosen, dtype=torch.int64), torch.tensor(gained, dtype=torch.float64)


def class_turns(sizes: Tensor, count: int) -> Tensor:
    """Whose turn it is when objects of several classes are chosen one by one, so that the shares of classes stay.

    First each class has one turn, the largest class first; then the next turn is that of the class with the largest
    ``N_c / (n_c + 1/2)``, of N_c objects and n_c turns so far. That is the method of Webster and Sainte-Laguë, which
    favours neither large nor small classes; and what is given for a count begins what is given for a larger one.

    Args:
        sizes: (C,) N_c, each at least 1.
        count: how many turns, from C to the sum of N_c.

    Returns:
        (count,) class numbers.

    >>> class_turns(torch.tensor([6, 2, 1]), 6).tolist()
    [0, 1, 2, 0, 0, 0]
    """
    classes = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    turn = torch.arange(len(classes), device=sizes.device) - (sizes.cumsum(0) - sizes)[classes]
    priority = sizes[classes].double() / (turn + 0.5)
    priority[turn == 0] += 2 * sizes.max()  # above all others, which are at most N_c / 1.5
    return classes[priority.sort(descending=True, stable=True).indices[:count]]


def _gains(distances: Tensor, nearest: Tensor) -> Tensor:
    """(N,) ``sum_i max(nearest_i - d(i, j), 0)`` of each object j, from (n, N) distances."""
    return (nearest[:, None] - distances).clamp_(min=0).sum(0, dtype=torch.float64)
