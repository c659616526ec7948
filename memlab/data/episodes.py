"""Query batches with their support sets: a function of (seed, epoch, step), whoever computes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from memlab.data.support import Support, SupportSampler


class Episode(NamedTuple):
    """One training step's data: queries, of several processes those of this one, and the support drawn for them."""

    inputs: Tensor
    """(B, ...) normalised query inputs; where others have the few that there are, one that is not counted."""
    labels: Tensor
    """(B,) class ids."""
    ids: Tensor
    """(B,) which object each query is."""
    support: Support
    exclude: Tensor | None
    """(B,) id of the object that each query must not read: its own, if the support holds it."""
    batch_size: int
    """Queries of the step, those of other processes included."""


class Queries(NamedTuple):
    """One batch of evaluation, the same in all processes."""

    inputs: Tensor
    """(B, ...) normalised inputs; of several processes those of the part that is for this one to encode, or one that is
    not counted."""
    labels: Tensor
    """(B,) class ids."""
    ids: Tensor
    """(B,) which object each query is."""


class EpisodeRows(NamedTuple):
    """An episode before it is on the device: rows of the store, and the seed of the step's own randomness."""

    query: Tensor
    support: Tensor | None
    """None for the whole training set."""
    seed: int


def generator_of(seed: int, *place: int) -> torch.Generator:
    """What draws for an epoch, the place (epoch,), or for a step, the place (epoch, step), whoever computes it."""
    words = np.random.SeedSequence([seed, *place, len(place)]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]))


class EpisodeDataset(Dataset[EpisodeRows]):
    """All episodes of all epochs, each computed from (seed, epoch, step) alone.

    An epoch cuts the training set, in an order drawn for the epoch, into query batches; the last one may be smaller. A
    support is sorted by class, in which order it is read fastest.

    Args:
        rows: (N,) rows of the training set.
        labels: (N,) their class ids.
        batch_size: B.
        support: draws the support of a batch.
        seed: seed of the run.
    """

    def __init__(self, *, rows: Tensor, labels: Tensor, batch_size: int, support: SupportSampler, seed: int) -> None:
        self._rows = rows
        self._labels = labels
        self._batch_size = batch_size
        self._support = support
        self._size = support.count(train_size=len(rows), batch_size=batch_size)
        self._seed = seed
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    @property
    def steps(self) -> int:
        """Query batches in an epoch."""
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, place: tuple[int, int]) -> EpisodeRows:
        epoch, step = place
        batch = self._order_of(epoch)[step * self._batch_size :][: self._batch_size]
        generator = generator_of(self._seed, epoch, step)
        support = self._support.draw(labels=self._labels, batch=batch, size=self._size, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        if support is None:
            return EpisodeRows(self._rows[batch], None, seed)
        by_class = self._labels[support].argsort(stable=True)
        return EpisodeRows(self._rows[batch], self._rows[support[by_class]], seed)

    def _order_of(self, epoch: int) -> Tensor:
        """The order of an epoch, drawn once for all its steps."""
        if self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self._rows), generator=generator_of(self._seed, epoch))
        return self._order[1]


class EpisodeOrder(Sampler[tuple[int, int]]):
    """The places (epoch, step) of one epoch, in order; Lightning names the epoch through ``set_epoch``.

    Not after an interruption, though: it then asks for the first places before it has worked out the epoch.

    Args:
        steps: query batches in an epoch.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._epoch = 0
        self._resume: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Go on with this epoch."""
        self._epoch = epoch

    def resume_at(self, epoch: int, step: int) -> None:
        """Begin the next pass here, whatever the epoch set; passes after it are whole again."""
        self._resume = (epoch, step) if step < self._steps else (epoch + 1, 0)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Only when the first place is asked for: a DataLoader with workers makes two iterators, and uses the second.
        epoch, first_step = self._resume or (self._epoch, 0)
        self._resume = None
        for step in range(first_step, self._steps):
            yield epoch, step
