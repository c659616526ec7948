"""Features of words that two texts share (Weston et al. 2014, section 3.6: matching features)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memlab.data.vocabulary import UNKNOWN

DEVIATION = 0.03
"""Of all weights of a memory network at the start; from 0.1 on it remembers training questions by chance features."""


class MatchVectors(nn.Module):
    """A vector for each pair of places, summed over the pairs of places that hold the same word.

    What is learned of a name that a question and a fact share holds for all other names. An unknown word is like none.

    Args:
        longest: places told apart; those behind the last count as the last.
        size: of the vectors.
    """

    def __init__(self, *, longest: int, size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(longest, longest, size).normal_(std=DEVIATION))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(n, size) of (n, J) and (n, J') words: ``sum_{j, i: left_j = right_i} v_ji``."""
        same = (left[:, :, None] == right[:, None, :]) & (left > UNKNOWN)[:, :, None]
        rows, columns = (clamped_places(text, len(self.vectors)) for text in (left, right))
        return same.flatten(1).to(self.vectors.dtype) @ self.vectors[rows][:, columns].flatten(0, 1)


def clamped_places(texts: Tensor, longest: int) -> Tensor:
    """(J,) the place of each word of (n, J), from 0; behind the last it is the last."""
    return torch.arange(texts.shape[1], device=texts.device).clamp(max=longest - 1)
