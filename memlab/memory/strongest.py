"""The keys with the highest scores, found on the way while all keys are read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 32
"""Neighbouring keys of which the highest score stands for all at first."""


class Strongest(NamedTuple):
    """The k keys of highest score of each query, strongest first."""

    places: Tensor
    """(B, k) of the keys; -1 where fewer could be read."""
    scores: Tensor
    """(B, k) their scores in nats; minus infinity where there is none."""


class Blocks:
    """Highest scores by block: the k strongest keys of a query lie in the k blocks whose highest scores are highest.

    To take a maximum goes over the scores far faster than to choose k of them, and no score needs to be kept.
    """

    def __init__(self) -> None:
        self._highest: list[Tensor] = []
        self._first: list[Tensor] = []
        self._end: list[Tensor] = []

    def take(self, start: int, scores: Tensor) -> None:
        """Take note of the scores (B, m) of the keys from ``start`` on."""
        by_row = scores.mT  # (m, B)
        size = len(by_row)
        whole = size - size % BLOCK
        self._highest.append(by_row[:whole].view(whole // BLOCK, BLOCK, len(scores)).amax(1))
        if whole < size:
            self._highest.append(by_row[whole:].amax(0, keepdim=True))
        first = torch.arange(start, start + size, BLOCK, device=scores.device)
        self._first.append(first)
        self._end.append((first + BLOCK).clamp(max=start + size))

    def candidates(self, k: int) -> Tensor:
        """(B, n) places among which the k strongest of each query lie; -1 for none."""
        highest = torch.cat(self._highest).mT.contiguous()  # (B, blocks)
        chosen = highest.topk(min(k, highest.shape[1]), dim=-1, sorted=False).indices[:, :, None]
        places = torch.cat(self._first)[chosen] + torch.arange(BLOCK, device=chosen.device)
        return places.masked_fill(places >= torch.cat(self._end)[chosen], -1).flatten(1)
