"""A step whose loss or gradient is not finite moves nothing, whatever the memory, and is told of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor

from memlab.data.support import SupportSampler, UniformSupport, WholeSupport
from memlab.encoders import MLP
from memlab.index.exact import ExactIndex
from memlab.memory import ChunkedMemory, FullMemory, Memory, TopKMemory
from memlab.memory.similarity import Euclidean
from memlab.training.checkpoint_files import CheckpointFiles, read_checkpoint
from memlab.training.checkpoints import LastCheckpoint
from memlab.training.nonfinite import FILE, STATE, DivergenceError, NonFinite, skipped_steps
from tests.conftest import SMOKE, Outcome, quiet_trainer
from tests.training.test_module import classifier, datamodule

STEPS = 5
"""Of an epoch."""


def memory_of(mode: str) -> Memory:
    similarity = Euclidean(learn_scale=True)
    if mode == "topk":
        words: dict[str, Any] = {"refresh_every": 2, "refresh_share": 0.5, "chunk_size": 16}
        return TopKMemory(similarity=similarity, k=5, index=ExactIndex(), **words)
    return FullMemory(similarity=similarity) if mode == "full" else ChunkedMemory(similarity=similarity, chunk_size=7)


class Poison(pl.Callback):
    """Spoils the loss, or one entry of the gradient, of some batches, and notes what every batch was and led to."""

    def __init__(self, *batches: int, what: str, by: float) -> None:
        self.batches, self.what, self.by = batches, what, by
        self.number = -1
        self.states: list[dict[str, Tensor]] = []
        self.losses: list[float] = []
        self.ids: list[list[int]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.number += 1
        self.ids.append(batch.ids.tolist())
        self.states.append({name: value.detach().clone() for name, value in module.state_dict().items()})

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        self.losses.append(float(loss.detach()))
        if self.number in self.batches and self.what == "loss":
            loss.data.fill_(self.by)

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.number in self.batches and self.what == "gradient":
            gradient = next(module.parameters()).grad
            assert gradient is not None
            gradient.view(-1)[0] = self.by

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.states.append({name: value.detach().clone() for name, value in module.state_dict().items()})


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def fitted(
    poison: Poison,
    *,
    action: str = "skip",
    most: int = 10,
    mode: str = "full",
    folder: Path | None = None,
    **words: Any,
) -> pl.Trainer:
    support: SupportSampler = WholeSupport() if mode == "topk" else UniformSupport(size=20)
    encoder = MLP(input_shape=(2,), hidden_sizes=[8], embedding_size=2, dropout=0.3)
    callbacks: list[pl.Callback] = [poison, NonFinite(action=action, most=most), Timer()]
    if folder is not None:
        callbacks.append(LastCheckpoint(dirpath=str(folder / "checkpoints"), every_minutes=60))
        words |= {"plugins": [CheckpointFiles()], "enable_checkpointing": True}
    trainer = quiet_trainer(epochs=2, callbacks=callbacks, **words)
    trainer.fit(classifier(encoder=encoder, memory=memory_of(mode)), datamodule=datamodule(support=support))
    return trainer


@pytest.mark.parametrize("mode", ["full", "chunked", "topk"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("by", [math.nan, -math.inf])
def test_step_left_out_moves_nothing_and_is_not_measured(mode: str, what: str, by: float) -> None:
    poison = Poison(1, 7, what=what, by=by)
    trainer = fitted(poison, mode=mode)
    moved = [not equal(*states) for states in zip(poison.states, poison.states[1:], strict=False)]
    assert moved == [number not in (1, 7) for number in range(2 * STEPS)]
    assert skipped_steps(trainer) == 2
    counted = [(poison.losses[number], len(poison.ids[number])) for number in range(STEPS, 2 * STEPS) if number != 7]
    mean = sum(loss * size for loss, size in counted) / sum(size for _, size in counted)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(mean, rel=1e-5)


def test_optimizer_takes_no_notice_of_it() -> None:
    """Adam counts its steps, and its means move even where a gradient is 0."""
    trainer = fitted(Poison(3, 4, what="gradient", by=math.inf))
    (states,) = (optimizer.state.values() for optimizer in trainer.optimizers)
    assert {int(state["step"]) for state in states} == {2 * STEPS - 2}


def test_one_batch_of_several_leaves_the_whole_step_out() -> None:
    poison = Poison(1, what="loss", by=math.nan)
    fitted(poison, accumulate_grad_batches=2)
    moved = [not equal(*states) for states in zip(poison.states, poison.states[1:], strict=False)]
    assert moved == [False, False, False, True, True, False, True, False, True, True]


def test_large_is_finite() -> None:
    """Its square is not."""
    assert skipped_steps(fitted(Poison(2, what="gradient", by=1e30), action="stop")) == 0


@pytest.mark.parametrize(("batches", "step"), [((2, 3, 4), 5), ((0, 1, 4, 5, 6, 7), 7)])
def test_too_many_in_a_row_stop(batches: tuple[int, ...], step: int) -> None:
    expected = f"train/loss=nan in step {step}, epoch {1 + (step > STEPS)}; more than max_skipped_in_a_row=2: lower the"
    with pytest.raises(DivergenceError, match=expected):
        fitted(Poison(*batches, what="loss", by=math.nan), most=2)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_stop_leaves_what_it_takes_to_look_into_it(tmp_path: Path, accumulated: int) -> None:
    poison = Poison(7, what="gradient", by=math.nan)
    expected = (
        r"the gradient of encoder\.\S+ in step \d, epoch 2 is not finite \(its objects: nonfinite.json, the state"
        r" before it: checkpoints/nonfinite.ckpt\): must stay finite; lower the learning rate \(lr\), clip"
    )
    with pytest.raises(DivergenceError, match=expected):
        fitted(poison, action="stop", folder=tmp_path, accumulate_grad_batches=accumulated)
    batches = slice(7, 7 + accumulated)  # with two to a step, the second one of its epoch
    found = json.loads((tmp_path / FILE).read_text())
    assert found["epoch"] == 2
    assert found["objects"] == poison.ids[batches]
    assert found["parameters"] == [next(iter(poison.states[0]))]
    assert [float(loss) for loss in found["losses"]] == poison.losses[batches]
    kept = read_checkpoint(tmp_path / "checkpoints" / STATE)
    assert equal(kept["state_dict"], poison.states[batches.start])
    assert kept["nonfinite"]["objects"] == found["objects"]
    assert [len(support) for support in kept["nonfinite"]["support"]] == [20] * accumulated


def test_files_are_of_the_first_step_in_a_row(tmp_path: Path) -> None:
    poison = Poison(3, 4, 8, 9, what="loss", by=math.inf)
    fitted(poison, folder=tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["objects"] == [poison.ids[8]]
    assert json.loads((tmp_path / FILE).read_text())["losses"] == ["inf"]


def test_a_run_that_goes_on_counts_on() -> None:
    first, second = NonFinite(action="skip", most=3), NonFinite(action="skip", most=3)
    first.skipped, first._in_a_row = 5, 2
    second.load_state_dict(first.state_dict())
    assert (second.skipped, second._in_a_row) == (5, 2)


def test_a_run_says_how_many_were_left_out(command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, "trainer.on_nonfinite=skip")
    assert json.loads((outcome.run_folders[0] / "results.json").read_text())["skipped_steps"] == 0
