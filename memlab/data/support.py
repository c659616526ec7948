"""Which training objects are the memory of a step: the support set and the ways to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memlab.checks import check_whole_number
from memlab.data.objects import ObjectStore, to_device


@dataclass
class Support:
    """M objects of a store to be read as memory. Holds rows, not pixels: inputs are made for the chunk asked for.

    Args:
        store: where the objects are.
        rows: (M,) rows of the store; they are also the objects' ids.
        dtype: floating type of the inputs.
        augmentation: random change of each input, drawn anew at every call of `inputs`; none by default.
    """

    store: ObjectStore
    rows: Tensor
    dtype: torch.dtype = torch.float32
    augmentation: Callable[[Any], Any] | None = None
    ids: Tensor = field(init=False)
    """(M,) which object each row is, on the computing device."""
    labels: Tensor = field(init=False)
    """(M,) class ids, on the computing device."""

    def __post_init__(self) -> None:
        self.ids = to_device(self.rows, self.store.device)
        self.labels = self.store.labels[self.ids]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.store.class_names)

    def inputs(self, part: slice = slice(None)) -> Any:
        """(m, ...) inputs of a part of the support, ready for the encoder; a tree of them if an object has parts."""
        inputs = self.inputs_as_they_are(part)
        return inputs if self.augmentation is None else self.augmentation(inputs)

    def inputs_as_they_are(self, part: slice = slice(None)) -> Any:
        """The same without augmentation."""
        return self.store.take(self.rows[part], dtype=self.dtype)

    def of(self, places: Tensor) -> Support:
        """The support of the objects at some places of this one."""
        return replace(self, rows=self.rows[to_device(places, self.rows.device)])


class SupportSampler:
    """Draws the support of one query batch: training objects without replacement, none of them in the batch."""

    is_whole = False
    """Whether every draw is the whole training set, the batch included, which may then be as large."""

    def check_fit(self, *, labels: Tensor, batch_size: int) -> None:
        """See that a draw is possible for every batch, which leaves something of the training set.

        Args:
            labels: (N,) class ids of the training set.
            batch_size: objects of the training set that are queries at the same time.

        Raises:
            ValueError: if the sampler asks for more than that.
        """

    def count(self, *, train_size: int, batch_size: int) -> int:
        """M, the objects drawn for a batch of ``batch_size`` out of a training set of ``train_size``."""
        raise NotImplementedError

    def draw(self, *, labels: Tensor, batch: Tensor, size: int, generator: torch.Generator) -> Tensor | None:
        """Draw a support.

        Args:
            labels: (N,) class ids of the training set.
            batch: (B,) positions in the training set of the query batch; the last batch of an epoch may be smaller.
            size: M, the `count` for a whole batch.
            generator: source of the randomness; equal states give equal draws.

        Returns:
            (M,) positions in the training set, distinct, none of them in ``batch``; None for the whole training set.
        """
        raise NotImplementedError


class AllSupport(SupportSampler):
    """Every other training object (the thesis's section 2.1)."""

    def count(self, *, train_size: int, batch_size: int) -> int:
        """See `SupportSampler.count`."""
        return train_size - batch_size

    def draw(self, *, labels: Tensor, batch: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """All positions but the batch's, in order; see `SupportSampler.draw`."""
        return _free(labels, batch).nonzero().flatten()


class WholeSupport(SupportSampler):
    """The whole training set, the batch included: each query leaves its own row alone unread (leave-one-out)."""

    is_whole = True

    def count(self, *, train_size: int, batch_size: int) -> int:
        """See `SupportSampler.count`."""
        return train_size

    def draw(self, *, labels: Tensor, batch: Tensor, size: int, generator: torch.Generator) -> None:
        """No positions, which would be all of them at every step; see `SupportSampler.draw`."""


FOR_EACH_QUERY = 8
"""Objects for each query of a batch, if M is ``auto``: their cost keeps its proportion, whatever the batch."""


class UniformSupport(SupportSampler):
    """M training objects, each equally likely (the thesis's section 2.3).

    Args:
        size: M, or below 1 a share of the training set; ``auto`` for 8 times the batch, or what a batch leaves if that
            is less.

    Raises:
        ValueError: if M is neither a whole number of at least 1 nor a share nor ``auto``.
    """

    def __init__(self, *, size: float | str) -> None:
        if size == "auto":
            self.size: float | None = None
        else:
            share = isinstance(size, float | np.floating) and 0 < size < 1
            self.size = float(size) if share else check_whole_number("size", size, or_else="a share below 1, or auto")

    def count(self, *, train_size: int, batch_size: int) -> int:
        """See `SupportSampler.count`."""
        if self.size is None:
            return min(FOR_EACH_QUERY * batch_size, train_size - batch_size)
        return int(self.size) if self.size >= 1 else max(round(self.size * train_size), 1)

    def check_fit(self, *, labels: Tensor, batch_size: int) -> None:
        """See `SupportSampler.check_fit`."""
        if self.count(train_size=len(labels), batch_size=batch_size) > len(labels) - batch_size:
            raise ValueError(
                f"size={self.size}: must be at most {len(labels) - batch_size}, what a batch of {batch_size}"
                f" leaves of the {len(labels)} training objects"
            )

    def draw(self, *, labels: Tensor, batch: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """See `SupportSampler.draw`."""
        return _shuffled_free(labels, batch, generator)[:size]


class BalancedSupport(UniformSupport):
    """M training objects, as equally many of each class as there are: no class is absent.

    A class that has fewer free objects than its share gives all it has, and the others make up for it.

    Args:
        size: M, at least the number of classes; else as of `UniformSupport`.

    Raises:
        ValueError: if M is neither a whole number of at least 1 nor a share nor ``auto``.
    """

    def check_fit(self, *, labels: Tensor, batch_size: int) -> None:
        """See `SupportSampler.check_fit`."""
        super().check_fit(labels=labels, batch_size=batch_size)
        present = len(labels.unique())
        if self.count(train_size=len(labels), batch_size=batch_size) < present:
            raise ValueError(
                f"size={self.size or 'auto'}: must be at least {present}, the number of classes, for balanced"
            )

    def draw(self, *, labels: Tensor, batch: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """See `SupportSampler.draw`."""
        shuffled = _shuffled_free(labels, batch, generator)
        by_class = shuffled[labels[shuffled].sort(stable=True).indices]
        counts = labels[shuffled].bincount()
        rank = torch.arange(len(by_class)) - (counts.cumsum(0) - counts)[labels[by_class]]
        return by_class[rank < self._quotas(size, counts, generator)[labels[by_class]]]

    def _quotas(self, size: int, counts: Tensor, generator: torch.Generator) -> Tensor:
        """(C,) how many of each class: equal up to 1 where the class has so many; chance decides who has 1 more."""
        quotas = torch.zeros_like(counts)
        while (left := size - int(quotas.sum())) > 0:
            open_classes = (quotas < counts).nonzero().flatten()
            share = left // len(open_classes)
            if share == 0:
                lucky = open_classes[torch.randperm(len(open_classes), generator=generator)[:left]]
                quotas[lucky] += 1
            else:
                quotas[open_classes] = torch.minimum(quotas[open_classes] + share, counts[open_classes])
        return quotas


def _free(labels: Tensor, batch: Tensor) -> Tensor:
    """(N,) true at positions that are not in the batch."""
    return torch.ones(len(labels), dtype=torch.bool).index_fill_(0, batch, False)


def _shuffled_free(labels: Tensor, batch: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(labels), generator=generator)
    return order[_free(labels, batch)[order]]
