"""Learning rate as a factor of the first one, by progress: the share of all training steps that are done.

Functions of the progress alone: torch's own ``CosineAnnealingLR`` steps from the rate before, so that a run which goes
on from a checkpoint for longer than first planned would stay at 0 or climb again. By steps and not by epochs, so that
a run of one epoch is annealed as a run of many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from memlab.checks import check_number


class CosineAnnealing:
    """``(1 + cos(pi p)) / 2``: from 1 down to 0 at the end, after a linear warm-up (Loshchilov and Hutter 2017, eq. 5).

    Args:
        warmup: share of the steps in which the rate rises to what it would be without warm-up; 0 for none.

    Raises:
        ValueError: for a share that is not from 0 up to 1.

    >>> [round(CosineAnnealing(warmup=0)(step / 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    >>> [round(CosineAnnealing(warmup=0.25)(step / 8), 3) for step in range(3)]
    [0.0, 0.481, 0.854]
    """

    def __init__(self, *, warmup: float) -> None:
        self.warmup = check_number("warmup", warmup, at_least=0, below=1)

    def __call__(self, progress: float) -> float:
        """The factor at a progress p, steps done over all steps."""
        annealed = (1 + math.cos(math.pi * min(progress, 1))) / 2
        return annealed * min(progress / self.warmup, 1) if self.warmup else annealed


class Drops:
    """``gamma^n`` after n of the drops.

    Args:
        at: shares of the steps after which the rate drops.
        gamma: by what it is multiplied there, above 0.

    Raises:
        ValueError: for a share or a gamma out of range.

    >>> [Drops(at=[0.5, 0.75], gamma=0.1)(step / 4) for step in range(5)]
    [1.0, 1.0, 0.1, 0.010000000000000002, 0.010000000000000002]
    """

    def __init__(self, *, at: Sequence[float], gamma: float) -> None:
        self.at = [check_number("at", share, at_least=0, below=1) for share in at]
        self.gamma = check_number("gamma", gamma, above=0)

    def __call__(self, progress: float) -> float:
        """The factor at a progress, steps done over all steps."""
        return self.gamma ** sum(progress >= share for share in self.at)


class Falling:
    """1 up to ``start``, and from there linearly down to ``end`` when all steps are done.

    Args:
        start: share of the steps after which the rate falls.
        end: by what it is multiplied at the end.

    Raises:
        ValueError: for a share or an end that is not from 0 up to 1.

    >>> [round(Falling(start=0.5, end=0.0)(step / 4), 3) for step in range(5)]
    [1.0, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, start: float, end: float) -> None:
        self.start = check_number("start", start, at_least=0, below=1)
        self.end = check_number("end", end, at_least=0, below=1)

    def __call__(self, progress: float) -> float:
        """The factor at a progress, steps done over all steps."""
        fallen = max(min(progress, 1) - self.start, 0) / (1 - self.start)
        return 1 - (1 - self.end) * fallen
