"""Learning rate as a factor of the first one, by progress: the share of all training steps that are done.

Functions of the progress alone: torch's own ``CosineAnnealingLR`` steps from the rate before, so that a run which goes
on from a checkpoint for longer than first planned would stay at 0 or climb again. By steps and not by epochs, so that
a run of one epoch is annealed as a run of many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def cosine(progress: float, *, warmup: float) -> float:
    """``(1 + cos(pi p)) / 2``: from 1 down to 0 at the end, after a linear warm-up (Loshchilov and Hutter 2017, eq. 5).

    Args:
        progress: p, steps done over all steps.
        warmup: share of the steps in which the rate rises to what it would be without warm-up; 0 for none.

    >>> [round(cosine(step / 4, warmup=0), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    >>> [round(cosine(step / 8, warmup=0.25), 3) for step in range(3)]
    [0.0, 0.481, 0.854]
    """
    annealed = (1 + math.cos(math.pi * min(progress, 1))) / 2
    return annealed * min(progress / warmup, 1) if warmup else annealed


def drops(progress: float, *, at: Sequence[float], gamma: float) -> float:
    """``gamma^n`` after n of the drops.

    Args:
        progress: steps done over all steps.
        at: shares of the steps after which the rate drops.
        gamma: by what it is multiplied there.

    >>> [drops(step / 4, at=[0.5, 0.75], gamma=0.1) for step in range(5)]
    [1.0, 1.0, 0.1, 0.010000000000000002, 0.010000000000000002]
    """
    return gamma ** sum(progress >= share for share in at)
