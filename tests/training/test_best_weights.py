"""Weights kept in memory: those of the best validation, by a plain loop over what was measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from memlab.training.best_weights import BestWeights


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 4.0)])
@pytest.mark.parametrize("figures", [[3.0, 1.0, 4.0, 1.0], [float("nan"), 4.0, 1.0], [1.0, 4.0, float("nan")]])
def test_the_weights_of_the_first_best_validation_come_back(mode: str, best: float, figures: list[float]) -> None:
    keeper, module = BestWeights(monitor="figure", mode=mode), nn.Linear(1, 1)
    given: Any = module
    for step, figure in enumerate(figures):
        nn.init.constant_(module.weight, float(step))
        trainer: Any = SimpleNamespace(sanity_checking=False, callback_metrics={"figure": torch.tensor(figure)})
        keeper.on_validation_end(trainer, given)
    before_training: Any = SimpleNamespace(sanity_checking=True, callback_metrics={})
    keeper.on_validation_end(before_training, given)
    keeper.on_train_end(trainer, given)
    assert float(module.weight) == figures.index(best)


def test_without_a_validation_the_last_weights_stay() -> None:
    module: Any = nn.Linear(1, 1)
    before = float(module.weight)
    nothing: Any = None
    BestWeights(monitor="figure", mode="min").on_train_end(nothing, module)
    assert float(module.weight) == before


def test_there_are_two_ends() -> None:
    with pytest.raises(ValueError, match="mode=best: must be one of min, max"):
        BestWeights(monitor="figure", mode="best")
