"""Which support objects decided, and with what weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memlab.argument_checks import check_whole_number
from memlab.stored_keys import StoredKeys


class Evidence(NamedTuple):
    """The k strongest support objects of each query, strongest first."""

    ids: Tensor
    """(B, k) which object."""
    labels: Tensor
    """(B, k) its class."""
    weights: Tensor
    """(B, k) its share of the read, ``p_bi`` of eq. 13; the weights of all objects of a query sum to 1."""


def strongest(stored: StoredKeys, query: Tensor, *, k: int, exclude: Tensor | None = None) -> Evidence:
    """Find the k support objects that weigh most in the read of each query.

    Args:
        stored: the memory that was read.
        query: (B, D) encoded queries.
        k: how many, at most the size of the memory.
        exclude: (B,) id of the object that each query must not read, or None to read all.

    Raises:
        ValueError: if k is not a whole number from 1 to the size of the memory.
    """
    check_k(k, available=len(stored))
    best_scores = query.new_empty(len(query), 0)
    best_places = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    total = torch.full((len(query),), -torch.inf, device=query.device)
    for part, scores in stored.score_tiles(query, exclude):
        total = torch.logaddexp(total.to(scores.dtype), scores.logsumexp(-1))
        top = scores.topk(min(k, scores.shape[-1]), dim=-1)
        candidates = torch.cat([best_scores.to(scores.dtype), top.values], dim=-1)
        best_scores, chosen = candidates.topk(min(k, candidates.shape[-1]), dim=-1)
        best_places = torch.cat([best_places, top.indices + part.start], dim=-1).gather(-1, chosen)
    weights = (best_scores - total[:, None]).exp()
    return Evidence(stored.ids[best_places], stored.labels[best_places], weights)


def check_k(k: object, *, available: int) -> None:
    """See that ``k`` objects can be shown of a memory of ``available``.

    Raises:
        ValueError: if k is not a whole number from 1 to ``available``.
    """
    if check_whole_number("evidence.k", k) > available:
        raise ValueError(f"evidence.k={k}: must be at most {available}, the objects in the memory")
