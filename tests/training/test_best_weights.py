"""Weights kept, in memory or a file: those of the best validation, by a plain loop over what was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from memlab.training.best_weights import BestWeights
from memlab.training.checkpoints import BEST, BestCheckpoint
from tests.conftest import quiet_trainer


def last_of(figures: list[float], best: float) -> int:
    return max(place for place, figure in enumerate(figures) if figure == best)


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 4.0)])
@pytest.mark.parametrize("figures", [[3.0, 1.0, 4.0, 1.0], [float("nan"), 4.0, 1.0], [1.0, 4.0, float("nan")]])
def test_the_weights_of_the_last_best_validation_come_back(mode: str, best: float, figures: list[float]) -> None:
    keeper, module = BestWeights(monitor="figure", mode=mode), nn.Linear(1, 1)
    given: Any = module
    for step, figure in enumerate(figures):
        nn.init.constant_(module.weight, float(step))
        trainer: Any = SimpleNamespace(sanity_checking=False, callback_metrics={"figure": torch.tensor(figure)})
        keeper.on_validation_end(trainer, given)
    before_training: Any = SimpleNamespace(sanity_checking=True, callback_metrics={})
    keeper.on_validation_end(before_training, given)
    keeper.on_train_end(trainer, given)
    assert float(module.weight) == last_of(figures, best)


def test_without_a_validation_the_last_weights_stay() -> None:
    module: Any = nn.Linear(1, 1)
    before = float(module.weight)
    nothing: Any = None
    BestWeights(monitor="figure", mode="min").on_train_end(nothing, module)
    assert float(module.weight) == before


def test_there_are_two_ends() -> None:
    with pytest.raises(ValueError, match="mode=best: must be one of min, max"):
        BestWeights(monitor="figure", mode="best")


class Scripted(pl.LightningModule):
    """Is told what is validated, epoch by epoch, and has the number of the epoch for its weights."""

    def __init__(self, figures: list[float]) -> None:
        super().__init__()
        self.epoch = nn.Parameter(torch.zeros(()))
        self._figures = figures

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        nn.init.constant_(self.epoch, self.current_epoch)
        return 0 * self.epoch

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("figure", self._figures[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 4.0)])
@pytest.mark.parametrize("figures", [[3.0, 1.0, 4.0, 1.0, 2.0], [4.0, 4.0, 1.0], [2.0, 1.0, 4.0, 1.0, 4.0], [1.0, 4.0]])
def test_the_file_of_the_best_is_that_of_the_last_best_validation(
    mode: str, best: float, figures: list[float], tmp_path: Path
) -> None:
    keeper = BestCheckpoint(dirpath=str(tmp_path), monitor="figure", mode=mode)
    trainer = quiet_trainer(len(figures), callbacks=[keeper], enable_checkpointing=True)
    batches: Any = DataLoader(range(2))  # type: ignore[arg-type]
    trainer.fit(Scripted(figures), batches, batches)
    assert [file.name for file in tmp_path.iterdir()] == [BEST]
    kept = torch.load(tmp_path / BEST, weights_only=True)
    assert float(kept["state_dict"]["epoch"]) == last_of(figures, best)
    assert keeper.best_model_score == best
