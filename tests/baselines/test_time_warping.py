"""Neighbours by dynamic time warping against its recurrence, and against published figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from memlab.baselines import SequenceKNN
from memlab.baselines.time_warping import warped_distances
from memlab.data.datasets import sequences
from memlab.data.objects import raw_objects
from memlab.data.sequences import Sequences

LENGTHS = [4, 1, 6, 3]


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 2, generator=generator, dtype=torch.float64) for length in LENGTHS]


def loop(x: Tensor, y: Tensor, window: float) -> float:
    reach = window + abs(len(x) - len(y))
    known: dict[tuple[int, int], float] = {(-1, -1): 0.0}
    for i, step in enumerate(x.tolist()):
        for j, other in enumerate(y.tolist()):
            if abs(i - j) <= reach:
                least = min(known.get(place, math.inf) for place in ((i - 1, j), (i, j - 1), (i - 1, j - 1)))
                known[i, j] = math.dist(step, other) ** 2 + least
    return known[len(x) - 1, len(y) - 1]


@pytest.mark.parametrize("window", [None, 0, 1, 2])
def test_distances_are_those_of_the_recurrence(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memlab.baselines.time_warping.NUMBERS_AT_A_TIME", 100)  # two at a time
    one, other = drawn(0), drawn(1)[:3]
    reach = math.inf if window is None else window
    expected = torch.tensor([[loop(x, y, reach) for y in other] for x in one], dtype=torch.float64)
    padded = [Sequences.of(each).taken(torch.arange(len(each))) for each in (one, other)]
    torch.testing.assert_close(warped_distances(*padded, window=window), expected)


def test_step_by_step_is_the_euclidean_distance() -> None:
    x, y = torch.randn(3, 5, 2), torch.randn(4, 5, 2)
    expected = torch.cdist(x.flatten(1).double(), y.flatten(1).double()).square()
    torch.testing.assert_close(warped_distances(x, y, window=0), expected)


def test_what_cannot_be_is_told() -> None:
    given: list[tuple[Callable[[], object], str]] = [
        (lambda: SequenceKNN(k=1, window=-1), "window=-1: must be a whole number of at least 0, or null"),
        (lambda: SequenceKNN(k=0, window=None), "k=0"),
        (lambda: SequenceKNN(k=1, window=0).check_fit(train_size=9, shape=(1, 8, 8)), "must be sequences"),
        (lambda: SequenceKNN(k=9, window=0).check_fit(train_size=3, shape=(None, 2)), "k=9: must be at most 3"),
    ]
    for make, told in given:
        with pytest.raises(ValueError, match=told):
            make()


@pytest.mark.parametrize(("window", "published"), [(0, 0.9553), (None, 0.9504)])
def test_italy_power_demand_has_the_published_accuracy(window: int | None, published: float) -> None:
    """Those of timeseriesclassification.com, one neighbour."""
    if (aeon := find_spec("aeon")) is None or aeon.origin is None:
        pytest.skip("no aeon, whose package has files of the archive")
    data = sequences(
        path=str(Path(aeon.origin).parent / "datasets" / "data" / "ItalyPowerDemand"), test_fraction=0.2, split_seed=0
    )
    train, test = (raw_objects(data.store.inputs, rows) for rows in (data.train_rows, data.test_rows))
    answers = SequenceKNN(k=1, window=window).predict(train, data.store.labels[data.train_rows], test)
    accuracy = (answers == data.store.labels[data.test_rows]).double().mean()
    assert float(accuracy) == pytest.approx(published, abs=5e-5)
