"""Runs of a setting that answer together: the mean of their class masses for each test object."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memlab import functional
from memlab.runs.report.collect import Row, Run
from memlab.runs.results import PREDICTIONS, Predictions, read_predictions

HEADINGS = ["data", "method", "runs", "answers", "test accuracy, %", "NLL", "AUROC"]


class Figures(NamedTuple):
    """What is told of the answers to the test objects."""

    accuracy: float
    nll: float
    auroc: float
    """Of two classes; not a number of others."""


class Ensemble(NamedTuple):
    """The runs of a row, and all of them together."""

    row: Row
    single: list[Figures]
    together: Figures


def ensembles_of(rows: Sequence[Row]) -> list[Ensemble]:
    """An ensemble of every row of several runs: ``y_tc = 1/n sum_r y_rtc`` of the class masses of its n runs.

    Raises:
        ValueError: if there is no such row, a run has left no answers, or runs of a row have other test objects.
    """
    several = [row for row in rows if len(row.runs) > 1]
    if not several:
        raise ValueError("--ensemble: no two runs differ in the seed alone; must be given such, as of -m seed=0,1,2")
    return [_ensemble(row) for row in several]


def _ensemble(row: Row) -> Ensemble:
    first, *others = row.runs
    expected = _predictions(first)
    masses: list[NDArray[Any]] = [expected.mass]
    for run in others:
        found = _predictions(run)
        if not expected.are_of_the_objects_of(found):
            raise ValueError(
                f"--ensemble: {first.folder} and {run.folder} have other test objects or classes; must have been tested"
                " on the same"
            )
        masses.append(found.mass)
    masses.append(np.stack(masses).mean(axis=0, dtype=np.float64))
    figures = [_figures(mass, expected.truth) for mass in masses]
    return Ensemble(row, figures[:-1], figures[-1])


def _predictions(run: Run) -> Predictions:
    if not (run.folder / PREDICTIONS).is_file():
        raise ValueError(f"--ensemble: {run.folder} lacks {PREDICTIONS}; must have what was answered")
    return read_predictions(run.folder)


def _figures(mass: NDArray[Any], truth: NDArray[np.int64]) -> Figures:
    from sklearn.metrics import roc_auc_score

    nll = functional.nll(torch.from_numpy(mass).log(), torch.from_numpy(truth)).mean()
    both = mass.shape[1] == len(np.unique(truth)) == 2
    return Figures(
        accuracy=float((mass.argmax(1) == truth).mean()),
        nll=float(nll),
        auroc=float(roc_auc_score(truth, mass[:, 1])) if both else float("nan"),
    )


def cells(ensembles: Sequence[Ensemble]) -> list[list[str]]:
    """Two lines for each: mean and deviation of the runs one by one, and of all together."""
    lines = []
    for row, single, together in ensembles:
        for answers, figures in (("one by one", single), ("together", [together])):
            accuracy, nll, auroc = zip(*figures, strict=True)
            told = [_told(accuracy, factor=100, digits=2), _told(nll, digits=4), _told(auroc, digits=4)]
            lines.append([row.data, row.method, str(len(single)), answers, *told])
    return lines


def _told(values: Sequence[float], *, factor: float = 1, digits: int) -> str:
    if np.isnan(values[0]):
        return "-"
    spread = f" ± {factor * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{factor * mean(values):.{digits}f}{spread}"
