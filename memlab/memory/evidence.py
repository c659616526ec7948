"""Which support objects decided, and with what weight."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from memlab.memory.strongest import Strongest


class Evidence(NamedTuple):
    """The k strongest support objects of each query, strongest first."""

    ids: Tensor
    """(B, k) which object; -1 where fewer could be read."""
    labels: Tensor
    """(B, k) its class."""
    weights: Tensor
    """(B, k) its share of the read, ``p_bi`` of eq. 13; the weights of all objects of a query sum to 1."""


def weigh(strongest: Strongest, *, labels: Tensor, ids: Tensor, total: Tensor) -> Evidence:
    """Tell of the strongest keys what they weigh in the read of each query; nothing, where it has read nothing.

    Args:
        strongest: (B, k) keys.
        labels: (N,) classes of all keys.
        ids: (N,) which object each is.
        total: (B,) log of the sum of ``exp(z_bi)`` over all that was read.
    """
    places, scores = strongest
    weights = (scores - total[:, None]).exp().masked_fill(total.isneginf()[:, None], 0)
    near = places.clamp(min=0)
    return Evidence(ids[near].masked_fill(places < 0, -1), labels[near], weights)
