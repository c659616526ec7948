"""Which support objects decided, and with what weight."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from memlab.memory.stored_keys import StoredKeys


class Evidence(NamedTuple):
    """The k strongest support objects of each query, strongest first."""

    ids: Tensor
    """(B, k) which object; -1 where fewer could be read."""
    labels: Tensor
    """(B, k) its class."""
    weights: Tensor
    """(B, k) its share of the read, ``p_bi`` of eq. 13; the weights of all objects of a query sum to 1."""


def weigh(stored: StoredKeys, query: Tensor, places: Tensor, *, total: Tensor) -> Evidence:
    """Tell of some keys what they weigh in the read of each query; nothing, where it has read nothing.

    Args:
        stored: the memory that was read.
        query: (B, D) encoded queries.
        places: (B, k) places of keys, strongest first; -1 for none.
        total: (B,) log of the sum of ``exp(z_bi)`` over all that was read.
    """
    weights = (stored.scores_of(query, places) - total[:, None]).exp().masked_fill(total.isneginf()[:, None], 0)
    near = places.clamp(min=0)
    return Evidence(stored.ids[near].masked_fill(places < 0, -1), stored.labels[near], weights)
