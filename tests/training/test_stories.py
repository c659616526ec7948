"""Training steps of stories, and what is measured of their questions, by plain loops."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memlab.data.datasets import StoryData, babi
from memlab.questions import MemN2N, StoryBatch, StoryNetwork, StoryRead
from memlab.training.schedules import Drops
from memlab.training.story_datamodule import StoryDataModule, StorySteps
from memlab.training.story_module import StoryAnswerer, measured
from tests.conftest import quiet_trainer
from tests.data.story_files import write_tasks


@pytest.fixture
def data(tmp_path: Path) -> StoryData:
    write_tasks(tmp_path)
    return babi(
        path=str(tmp_path),
        tasks=[1, 5],
        size="1k",
        missing="refuse",
        download=False,
        validation_fraction=0.2,
        split_seed=0,
    )


def module_of(data: StoryData, *, batch_size: int = 7, most_cells: int | None = None) -> StoryDataModule:
    return StoryDataModule(data=data, most_cells=most_cells, batch_size=batch_size, eval_batch_size=10, seed=3)


class TestSteps:
    @pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
    def test_each_question_is_asked_once_in_an_epoch(self, data: StoryData, batch_size: int) -> None:
        made = module_of(data).encoder.encoded(data.train)
        steps = StorySteps(made, batch_size=batch_size, seed=0)
        orders = []
        for epoch in (0, 1):
            batches = [steps[epoch, step].batch for step in range(steps.steps)]
            asked = [number for batch in batches for number in batch.ids.tolist()]
            assert sorted(asked) == list(range(len(made.tasks)))
            assert max(map(len, batches)) <= batch_size + 2 * 3  # stories of three questions are not cut
            orders.append(asked)
        assert orders[0] != orders[1]

    def test_a_step_is_a_function_of_seed_epoch_and_step(self, data: StoryData) -> None:
        made = module_of(data).encoder.encoded(data.train)
        first, second = (StorySteps(made, batch_size=7, seed=5) for _ in range(2))
        second[2, 3]
        for place in [(0, 1), (4, 2)]:
            one, other = first[place], second[place]
            assert one.seed == other.seed
            assert torch.equal(one.batch.ids, other.batch.ids)
        assert not torch.equal(first[0, 1].batch.ids, StorySteps(made, batch_size=7, seed=6)[0, 1].batch.ids)

    def test_evaluation_asks_each_question_once_and_in_order(self, data: StoryData) -> None:
        module = module_of(data)
        for loader, part in ((module.val_dataloader(), data.validation), (module.test_dataloader(), data.test)):
            asked = [number for batch in loader for number in batch.ids.tolist()]
            assert asked == list(range(sum(len(story.questions) for story in part)))


class Scripted(StoryNetwork):
    """Answers and weighs as it is told."""

    def __init__(self, scores: Tensor, weights: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._read = StoryRead(scores, weights)

    def read(self, batch: StoryBatch) -> StoryRead:
        return self._read


class TestMeasured:
    def test_by_loops_over_questions_and_cells(self, data: StoryData) -> None:
        module = module_of(data)
        batch = module.test.batch(np.arange(len(data.test)))
        torch.manual_seed(0)
        scores = torch.randn(len(batch), len(module.encoder.answers), dtype=torch.float64)
        weights = tuple(torch.rand(len(batch.cells)) for _ in range(2))
        found = measured(Scripted(scores, weights), batch)
        asked = [question for story in data.test for question in story.questions]
        tasks = [story.task for story in data.test for _ in story.questions]
        wrong: Counter[str] = Counter()
        hits: Counter[tuple[str, int]] = Counter()
        for number, question in enumerate(asked):
            probabilities = scores[number].softmax(0)
            best = int(probabilities.argmax())
            assert found.answers[number] == best
            assert found.probability[number] == pytest.approx(float(probabilities[best]))
            wrong[tasks[number]] += module.encoder.answers[best] != question.answer
            true = module.encoder.answers.index(question.answer)
            assert float(found.nll[number]) == pytest.approx(-float(probabilities[true].log()))
            own = (batch.asker == number).nonzero().flatten()
            for hop, each in enumerate(weights):
                hits[tasks[number], hop] += int(each[own].argmax()) in question.supporting
        for task, error in found.error_by_task(tasks).items():
            assert error == pytest.approx(wrong[task] / tasks.count(task))
            expected = [hits[task, hop] / tasks.count(task) for hop in range(2)]
            assert found.recall_by_task(tasks)[task] == pytest.approx(expected)

    def test_an_answer_never_seen_is_wrong_and_of_unknown_probability(self, data: StoryData) -> None:
        module = module_of(data)
        batch = module.test.batch(np.arange(2))
        batch.answers[0] = -1
        found = measured(Scripted(torch.zeros(len(batch), 3), ()), batch)
        assert not found.right[0]
        assert found.nll.isnan().tolist() == [True] + [False] * (len(batch) - 1)
        assert found.found.shape == (len(batch), 0)


def network(module: StoryDataModule, *, linear_start: float = 0.5) -> MemN2N:
    torch.manual_seed(0)
    return MemN2N(
        words=len(module.encoder.vocabulary),
        answer_words=module.encoder.answer_words,
        most_cells=module.train.most_told,
        longest=module.train.longest,
        size=4,
        hops=2,
        tying="adjacent",
        encoding="centred",
        filled_up=False,
        random_noise=0.1,
        linear_start=linear_start,
    )


def answerer(module: StoryDataModule, made: StoryNetwork, **words: Any) -> StoryAnswerer:
    given: dict[str, Any] = {
        "reduction": "mean",
        "optimizer": partial(torch.optim.SGD, lr=1.0),
        "scheduler": {"factor": Drops(at=[0.5], gamma=1.0)},
        **words,
    }
    given |= {"validation_tasks": module.validation.tasks, "test_tasks": module.test.tasks}
    return StoryAnswerer(network=made, encoder=module.encoder, **given)


class TestLinearStart:
    @pytest.mark.parametrize(("share", "linear"), [(0.0, 0), (0.25, 3), (0.5, 5)])
    def test_is_a_share_of_the_steps(self, data: StoryData, share: float, linear: int) -> None:
        """Of ten steps; and what is kept of a network remembers it."""
        module = module_of(data)
        made, found = network(module, linear_start=share), []
        losses = made.losses

        def noted(batch: StoryBatch) -> torch.Tensor:
            found.append(bool(made.is_linear))
            return losses(batch)

        made.losses = noted  # type: ignore[method-assign]
        quiet_trainer(max_steps=10, limit_val_batches=0).fit(answerer(module, made), datamodule=module)
        assert found == [True] * linear + [False] * (10 - linear)
        again = network(module)
        again.load_state_dict(made.state_dict())
        assert not again.is_linear

    def test_hops_have_no_softmax_until_then(self, data: StoryData) -> None:
        module = module_of(data)
        made = network(module).eval()
        batch = module.test.batch(np.arange(3))
        linear = made.read(batch).weights[0]
        made.at_progress(0.5)
        soft = made.read(batch).weights[0]
        for number in range(len(batch)):
            own = batch.asker == number
            torch.testing.assert_close(soft[own], linear[own].softmax(0))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_is_one_of_sgd_by_the_losses(data: StoryData, reduction: str, weighted: bool) -> None:
    module = module_of(data)
    made, by_hand = network(module, linear_start=0), network(module, linear_start=0)
    weights = torch.rand(len(module.train.tasks)) if weighted else None
    words = {"reduction": reduction, "weights": weights, "optimizer": partial(torch.optim.SGD, lr=0.1)}
    model = answerer(module, made, **words)
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=module)
    step = StorySteps(module.train, batch_size=7, seed=3)[0, 0]
    torch.manual_seed(step.seed)  # of the noise
    losses = by_hand.losses(step.batch) * (1 if weights is None else weights[step.batch.ids])
    (losses.sum() if reduction == "sum" else losses.mean()).backward()
    for moved, start in zip(made.parameters(), by_hand.parameters(), strict=True):
        assert start.grad is not None
        torch.testing.assert_close(moved, start - 0.1 * start.grad)
