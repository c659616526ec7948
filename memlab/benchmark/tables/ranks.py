"""Who is ahead over many tables: ranks, wins, and what difference of mean ranks is no chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIGITS = 12
"""Figures that agree so far are equal."""


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks on each table, 1 for the largest value; equal ones share the mean of their ranks, and NaN is last.

    Args:
        values: (N, k) of k methods on N tables.

    Returns:
        (N, k) ranks.

    >>> ranks(np.array([[0.9, 0.8, 0.9, np.nan]]))
    array([[1.5, 3. , 1.5, 4. ]])
    """
    from scipy.stats import rankdata

    found: NDArray[np.float64] = rankdata(-_comparable(values), axis=1)
    return found


def win_rates(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the tables on which a method has a larger value than another; equal ones are half a win for each.

    Args:
        values: (N, k) of k methods on N tables.

    Returns:
        (k, k) of the method of the row over that of the column; NaN on the diagonal.

    >>> win_rates(np.array([[0.9, 0.8], [0.7, 0.7]]))
    array([[ nan, 0.75],
           [0.25,  nan]])
    """
    mine, theirs = _comparable(values)[:, :, None], _comparable(values)[:, None, :]
    rates: NDArray[np.float64] = ((mine > theirs) + (mine == theirs) / 2).mean(axis=0)
    np.fill_diagonal(rates, np.nan)
    return rates


def critical_difference(methods: int, tables: int, *, level: float = 0.05) -> float:
    """The least difference of two mean ranks that is significant by Nemenyi's test: ``q sqrt(k (k + 1) / 6 N)``.

    q is the quantile of the studentized range of k methods over the root of 2 (Demsar 2006, "Statistical comparisons
    of classifiers over multiple data sets").

    Args:
        methods: k, at least 2.
        tables: N.
        level: of significance.

    >>> round(critical_difference(4, 14), 2)  # Demsar's own example: q of 2.569
    1.25
    """
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * tables)))


def _comparable(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.where(np.isnan(values), -np.inf, np.round(values, DIGITS))
    return found
