"""What is measured of the answers to test rows, of every method alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-15
"""Mass that a class has at least where its logarithm is taken, for those who are sure and wrong."""


def figures(mass: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    """Figures by name.

    Args:
        mass: (T, C) class mass, each row summing to 1.
        truth: (T,) classes.
    """
    return {"accuracy": accuracy(mass, truth), "log_loss": log_loss(mass, truth), "auroc": auroc(mass, truth)}


def accuracy(mass: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Share of the rows whose class has the largest mass, the first of those with equal mass."""
    return float((mass.argmax(axis=1) == truth).mean())


def log_loss(mass: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Mean of ``-log max(y_t, LEAST)``, nats, y_t the mass of the true class."""
    own = mass[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(own, LEAST, 1)).mean())


def auroc(mass: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """How surely the mass of a class ranks its rows above all others, the mean over the classes.

    Of a class with n rows, m others and ranks r of all rows by its mass, the mean of those that are equal,
    ``(sum of r over its rows - n (n + 1) / 2) / (n m)`` (Hanley and McNeil 1982); one against the rest (Provost and
    Domingos 2000, unweighted). Classes without rows, or without others, do not count.
    """
    from scipy.stats import rankdata

    found = []
    for number in range(mass.shape[1]):
        own = truth == number
        n, m = int(own.sum()), int((~own).sum())
        if n and m:
            found.append((rankdata(mass[:, number])[own].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(found))
