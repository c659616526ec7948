"""Jobs of a sweep that are behind the others end early: their figures are those of validation, the rule is Optuna's."""

from __future__ import annotations

import csv
import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from memlab.checks import check_choice
from memlab.runs.results import FILE as RESULTS
from memlab.runs.resume import SWEEP
from memlab.training.metrics_file import FILE as METRICS

log = logging.getLogger(__name__)


class Pruning(pl.Callback):
    """Ends the training of a job at a validation by which it is behind the jobs that have come to their end.

    It is tested all the same, by its best checkpoint. What has come to its end before decides: a sweep whose jobs run
    side by side may end others early than one whose jobs run in turn.

    Args:
        folder: of the job.
        monitor: figure of validation.
        mode: ``min`` or ``max``, the end of it that is best.
        pruner: one of `optuna.pruners`, whose steps are validations, counted from 0: `MedianPruner` ends what has, at
            its best, done worse than half of the others had by then (Golovin et al. 2017, median stopping rule).

    Raises:
        ValueError: if the folder is not that of a job of a sweep.
    """

    def __init__(self, *, folder: str, monitor: str, mode: str, pruner: Any) -> None:
        self._folder = Path(folder).absolute()
        if not (self._folder.parent / SWEEP).is_file():
            raise ValueError("is for the jobs of a sweep, which are begun by python train.py -m")
        self._monitor = monitor
        self._direction = f"{check_choice('mode', mode, ['min', 'max'])}imize"
        self._pruner = pruner
        self._figures: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the figure, and end training if the pruner says so."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or self._monitor not in trainer.callback_metrics:
            return
        self._figures.append(float(trainer.callback_metrics[self._monitor]))
        others = self._others()
        if others and self._is_behind(others):
            log.info(
                f"ends here: by {self._monitor} behind the {len(others)} jobs of the sweep that have come to an end"
            )
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has behind it."""
        return {"figures": self._figures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._figures = list(state_dict["figures"])

    def _others(self) -> list[list[float]]:
        """Figures of the jobs that have come to their end, by validation."""
        ended = sorted(path.parent for path in self._folder.parent.glob(f"*/{RESULTS}"))
        return [found for folder in ended if folder != self._folder and (found := self._figures_of(folder))]

    def _figures_of(self, folder: Path) -> list[float]:
        if not (folder / METRICS).is_file():
            return []
        with (folder / METRICS).open(encoding="utf-8", newline="") as file:
            return [float(row[self._monitor]) for row in csv.DictReader(file) if row.get(self._monitor)]

    def _is_behind(self, others: list[list[float]]) -> bool:
        logging.getLogger("alembic").setLevel(logging.WARNING)  # which comes with it, and tells of each of its parts
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        with warnings.catch_warnings(action="ignore"):  # of what Optuna calls experimental since 2.0
            study = optuna.create_study(direction=self._direction, pruner=self._pruner)
            best = min if self._direction == "minimize" else max
            for figures in others:
                study.add_trial(
                    optuna.trial.create_trial(value=best(figures), intermediate_values=dict(enumerate(figures)))
                )
            trial = study.ask()
        for number, figure in enumerate(self._figures):
            trial.report(figure, number)
        return bool(trial.should_prune())
