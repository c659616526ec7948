"""Sequences of different lengths side by side: what is behind the end of one changes nothing of what is made of it.

Shape legend: B sequences, T steps of the longest, H features of a step; ``present`` is (B, T), true at the steps that a
sequence has, which are its first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def backwards(steps: Tensor, present: Tensor) -> Tensor:
    """(B, T, H) steps of each sequence from its last to its first, ``h_{L - 1 - t}``; what is behind stays there.

    >>> backwards(torch.tensor([[[1], [2], [0]]]), torch.tensor([[True, True, False]])).flatten().tolist()
    [2, 1, 0]
    """
    lengths = present.sum(1, keepdim=True)
    places = torch.arange(steps.shape[1], device=steps.device)
    source = torch.where(present, lengths - 1 - places, places)
    return steps.gather(1, source[..., None].expand_as(steps))


def window(steps: Tensor, weights: Tensor, present: Tensor) -> Tensor:
    """``o_k = sum_{i=0}^{2n} a_i h_{k+i-n}``, the sum of a being 1: of steps that there are, as of all near an end.

    Args:
        steps: (B, T, H) h.
        weights: (2 n + 1,) a, positive, before they are divided by their sum.
        present: (B, T) steps that there are.

    Returns:
        (B, T, H) o; 0 at steps that there are not.

    >>> steps, everywhere = torch.tensor([[[0.0], [3.0], [6.0]]]), torch.ones(1, 3, dtype=torch.bool)
    >>> window(steps, torch.ones(3), everywhere).flatten().tolist()
    [1.5, 3.0, 4.5]
    """
    reach, count = len(weights) // 2, steps.shape[1]
    there = present[..., None].to(steps.dtype)
    padding = (0, 0, reach, reach)
    shifted = torch.nn.functional.pad(steps.masked_fill(~present[..., None], 0), padding)
    mass = torch.nn.functional.pad(there, padding)
    total, weight = torch.zeros_like(steps), torch.zeros_like(there)
    for place, each in enumerate(weights):
        total = total + each * shifted[:, place : place + count]
        weight = weight + each * mass[:, place : place + count]
    return torch.where(present[..., None], total / torch.where(weight > 0, weight, 1), 0)


def pool_last(steps: Tensor, present: Tensor) -> Tensor:
    """(B, H) the last step of each sequence, ``h_{L - 1}``."""
    last = present.sum(1) - 1
    return steps[torch.arange(len(steps), device=steps.device), last]


def pool_mean(steps: Tensor, present: Tensor) -> Tensor:
    """(B, H) mean of the steps of each sequence, ``sum_t h_t / L``."""
    return steps.masked_fill(~present[..., None], 0).sum(1) / present.sum(1, keepdim=True)


def pool_max(steps: Tensor, present: Tensor) -> Tensor:
    """(B, H) maximum over the steps of each sequence, feature by feature."""
    return steps.masked_fill(~present[..., None], -torch.inf).amax(1)


def pool_attention(steps: Tensor, scores: Tensor, present: Tensor) -> Tensor:
    """(B, H) ``sum_t a_t h_t`` with ``a = softmax(scores)`` over the steps of each sequence.

    Args:
        steps: (B, T, H) h.
        scores: (B, T) of the steps.
        present: (B, T) steps that there are.
    """
    weights = scores.masked_fill(~present, -torch.inf).softmax(1)
    return (weights[:, None] @ steps).squeeze(1)
