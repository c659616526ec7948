"""Batches of stories: for training in an order drawn for each epoch, for validation and test as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from memlab.checks import check_whole_number
from memlab.data.datasets import StoryData
from memlab.data.episodes import EpisodeOrder, generator_of
from memlab.questions.batch import StoryBatch
from memlab.questions.encoded import EncodedStories, StoryEncoder, Whole
from memlab.training.places import begin_step, place_of_next_step


class StoryStep(NamedTuple):
    """A training step before it is on the device: stories, and the seed of its own randomness."""

    batch: StoryBatch
    seed: int


class StorySteps(Dataset[StoryStep]):
    """All steps of all epochs, each computed from (seed, epoch, step) alone.

    An epoch cuts the stories, in an order drawn for it, into steps that have about as many questions each.

    Args:
        stories: to train on.
        batch_size: questions in a step, at most about.
        seed: of the run.
    """

    def __init__(self, stories: EncodedStories, *, batch_size: int, seed: int) -> None:
        self._stories = stories
        self._seed = seed
        questions = int(stories.questions_of_stories.sum())
        self.steps = min(-(-questions // batch_size), len(stories))
        """In an epoch."""
        self._cut: tuple[int, list[Whole]] = (-1, [])

    def __getitem__(self, place: tuple[int, int]) -> StoryStep:
        epoch, step = place
        if self._cut[0] != epoch:
            self._cut = epoch, self._steps_of(epoch)
        seed = int(torch.randint(2**62, (), generator=generator_of(self._seed, epoch, step)))
        return StoryStep(self._stories.batch(self._cut[1][step]), seed)

    def _steps_of(self, epoch: int) -> list[Whole]:
        order = torch.randperm(len(self._stories), generator=generator_of(self._seed, epoch)).numpy()
        return _cut(order, self._stories.questions_of_stories[order], parts=self.steps)


class StoryDataModule(pl.LightningDataModule):
    """Stories in batches, each distinct sentence of a batch once; vocabulary and answers are those of training stories.

    Args:
        data: the stories, some in each part.
        most_cells: sentences that a question may read, the newest; None for all.
        batch_size: questions in a training step: whole stories are put together that have about so many.
        eval_batch_size: questions at a time in evaluation, likewise.
        seed: of the run.

    Raises:
        ValueError: for a value below 1.
    """

    def __init__(
        self, *, data: StoryData, most_cells: int | None, batch_size: int, eval_batch_size: int, seed: int
    ) -> None:
        super().__init__()
        if most_cells is not None:
            check_whole_number("most_cells", most_cells, or_else="null")
        check_whole_number("batch_size", batch_size)
        check_whole_number("eval_batch_size", eval_batch_size)
        self.data = data
        self.encoder = StoryEncoder.of(data.train, most_cells=most_cells)
        self.train = self.encoder.encoded(data.train)
        self.validation = self.encoder.encoded(data.validation)
        self.test = self.encoder.encoded(data.test)
        self._steps = StorySteps(self.train, batch_size=batch_size, seed=seed)
        self._order = EpisodeOrder(self._steps.steps)
        self._eval_batch_size = eval_batch_size
        self.sizes = {
            "train": len(self.train.tasks),
            "validation": len(self.validation.tasks),
            "test": len(self.test.tasks),
            "stories": len(self.train),
            "batch": batch_size,
            "words": len(self.encoder.vocabulary),
            "answers": len(self.encoder.answers),
        }
        """Questions of each part; training stories; questions in a step; words, answers."""
        self.batches = {
            "train": self._steps.steps,
            "val": len(self._cut(self.validation)),
            "test": len(self._cut(self.test)),
        }
        """Batches of an epoch, a validation and a test."""

    def train_dataloader(self) -> DataLoader[StoryStep]:
        """Steps of the epoch."""
        return DataLoader(self._steps, sampler=self._order, batch_size=None, collate_fn=_as_it_is)

    def val_dataloader(self) -> DataLoader[StoryBatch]:
        """Validation stories."""
        return self._whole(self.validation)

    def test_dataloader(self) -> DataLoader[StoryBatch]:
        """Test stories."""
        return self._whole(self.test)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> StoryBatch:
        """Begin a training step; bring a batch to the device that computes."""
        if isinstance(batch, StoryStep):
            begin_step(batch.seed, device, rank=0)
            batch = batch.batch
        assert isinstance(batch, StoryBatch)
        return batch.to(device)

    def state_dict(self) -> dict[str, int]:
        """The place of the next step."""
        return place_of_next_step(self.trainer)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there."""
        self._order.resume_at(state_dict["epoch"], state_dict["step"])

    def _whole(self, stories: EncodedStories) -> DataLoader[StoryBatch]:
        batches: Any = _Batches(stories, self._cut(stories))
        return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)

    def _cut(self, stories: EncodedStories) -> list[Whole]:
        counts = stories.questions_of_stories
        parts = min(-(-int(counts.sum()) // self._eval_batch_size), len(stories))
        return _cut(np.arange(len(stories)), counts, parts=parts)


class _Batches(Dataset[StoryBatch]):
    """Stories in parts, each put together when it is asked for."""

    def __init__(self, stories: EncodedStories, parts: list[Whole]) -> None:
        self._stories, self._parts = stories, parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> StoryBatch:
        return self._stories.batch(self._parts[number])


def _cut(order: Whole, counts: Whole, *, parts: int) -> list[Whole]:
    """Cut stories into parts that have about as many questions each, and a story at least.

    >>> [part.tolist() for part in _cut(np.arange(4), np.array([1, 1, 9, 1]), parts=3)]
    [[0, 1], [2], [3]]
    """
    before = counts.cumsum() - counts
    places = np.arange(1, parts)
    cuts = np.searchsorted(before, places * counts.sum() / parts)
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - places) + places
    return np.split(order, np.minimum(cuts, len(order) - parts + places))


def _as_it_is(value: Any) -> Any:
    return value
