"""Learning rate by epoch as a factor of the first one, for `torch.optim.lr_scheduler.LambdaLR`.

A function of the epoch alone: torch's own ``CosineAnnealingLR`` steps from the rate before, so that a run which goes on
from a checkpoint for more epochs than first planned would stay at 0 or climb again.
"""

from __future__ import annotations

import math


def cosine(epoch: int, *, epochs: int) -> float:
    """``(1 + cos(pi epoch / epochs)) / 2``: from 1 at the start down to 0 after the last epoch.

    Args:
        epoch: epochs done.
        epochs: epochs in all.

    >>> [round(cosine(epoch, epochs=4), 3) for epoch in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return (1 + math.cos(math.pi * min(epoch / epochs, 1))) / 2
