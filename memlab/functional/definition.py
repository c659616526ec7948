"""The read as it is defined, in a line and at any cost: what the fast forms are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.functional.class_read import ClassRead


def class_read(scores: Tensor, labels: Tensor, num_classes: int) -> ClassRead:
    """``s_bc = log sum_{i: y_i=c} exp(z_bi)`` and ``min_i z_bi``, in memory of B C M numbers.

    Differentiable in the scores by autograd alone; the gradient holds for finite scores.

    Args:
        scores: (B, M) scores; minus infinity for objects not to be read.
        labels: (M,) class ids of the objects that all queries share, or (B, M) where every query has its own.
        num_classes: C.

    >>> read = class_read(torch.tensor([[0.0, 0.0, 7.0]]), torch.tensor([0, 0, 2]), num_classes=3)
    >>> read.class_scores, read.lowest
    (tensor([[0.6931,   -inf, 7.0000]]), tensor([0.]))
    """
    of_class = labels[..., None, :] == torch.arange(num_classes, device=labels.device)[:, None]
    class_scores = scores[:, None].masked_fill(~of_class, -torch.inf).logsumexp(-1)
    lowest = scores.detach().masked_fill(scores.isneginf(), torch.inf).amin(-1)
    return ClassRead(class_scores, lowest)
