from __future__ import annotations

import pytest

from memlab.baselines import PixelKNN
from memlab.datasets import digits


def test_pixel_knn_is_the_vote_of_the_nearest_raw_objects() -> None:
    data = digits(test_fraction=0.2, split_seed=0)
    pixels = data.store.inputs.flatten(1).double()
    distances = (pixels[data.test_rows, None] - pixels[None, data.train_rows[:200]]).square().sum(-1)
    nearest = data.store.labels[data.train_rows[:200]][distances.argmin(dim=1)]
    expected = (nearest == data.store.labels[data.test_rows]).double().mean().item()
    found = PixelKNN(k=1).accuracy(data.store, train_rows=data.train_rows[:200], test_rows=data.test_rows)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 1.5, "abc"])
def test_k_must_be_a_whole_number_above_zero(k: object) -> None:
    with pytest.raises(ValueError, match=f"k={k}: must be a whole number"):
        PixelKNN(k=k)  # type: ignore[arg-type]


def test_k_must_fit_the_training_set() -> None:
    with pytest.raises(ValueError, match=r"knn_pixels\.k=11: must be at most 10"):
        PixelKNN(k=11).check_fit(train_size=10)
