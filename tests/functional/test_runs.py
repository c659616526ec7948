"""Sums and maxima by class, as runs of rows: those of a plain loop, whatever the sizes."""

from __future__ import annotations

import pytest
import torch

from memlab import functional
from memlab.functional.runs import SHORT, Runs


@pytest.mark.parametrize("rows", [0, 1, SHORT - 1, SHORT, SHORT + 1, 5 * SHORT + 3])
@pytest.mark.parametrize("classes", [1, 3, 400])
@pytest.mark.parametrize("is_sorted", [True, False])
class TestRuns:
    def labels(self, rows: int, classes: int, is_sorted: bool) -> torch.Tensor:
        labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(rows + classes))
        labels[: rows // 2] = classes // 2  # some classes are long, and of many there is nothing
        return labels.sort().values if is_sorted else labels

    def test_reduces_the_rows_of_each_class(self, rows: int, classes: int, is_sorted: bool) -> None:
        labels = self.labels(rows, classes, is_sorted)
        values = torch.randn(rows, 4, dtype=torch.float64)
        runs = Runs(labels, classes, labels.bincount(minlength=classes) if is_sorted else None)
        sums = runs.reduced(runs.sorted(values), "sum", empty=0.0)
        largest = runs.reduced(runs.sorted(values), "max", empty=-torch.inf)
        assert runs.labels.equal(labels.sort().values)
        for each in range(classes):
            own = values[labels == each]
            torch.testing.assert_close(sums[each], own.sum(0))
            assert largest[each].equal(own.amax(0) if len(own) else torch.full((4,), -torch.inf, dtype=torch.float64))
            assert runs.counts[each] == len(own)

    def test_what_is_sorted_by_class_is_not_moved(self, rows: int, classes: int, is_sorted: bool) -> None:
        labels = self.labels(rows, classes, is_sorted=True)
        values = torch.randn(rows, 4)
        assert Runs(labels, classes, labels.bincount(minlength=classes)).sorted(values) is values


def test_sums_by_class_has_the_gradient_of_a_sum() -> None:
    rows = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, 0, 2, 2, 3, 0, 3])
    assert torch.autograd.gradcheck(lambda each: functional.sums_by_class(each, labels, 5)[0], rows)
