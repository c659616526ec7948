"""The baselines against their definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from memlab.baselines import PCAKNN, Baseline, EmbeddingKNN, PixelKNN, TangentDistanceKNN
from memlab.baselines.tangent_distance import smoothed, tangents
from memlab.data.datasets import LabelledData, digits, torchvision_images

TANGENT: dict[str, Any] = {"k": 1, "candidates": 10, "sigma": 1.0, "stiffness": 0.01}


@pytest.fixture(scope="module")
def data() -> LabelledData:
    return digits(test_fraction=0.2, split_seed=0)


def accuracy(baseline: Baseline, data: LabelledData, *, train: int = 100000, test: int = 100000) -> float:
    inputs, labels = data.store.inputs, data.store.labels
    known, asked = data.train_rows[:train], data.test_rows[:test]
    return float((baseline.predict(inputs[known], labels[known], inputs[asked]) == labels[asked]).double().mean())


def loop_knn(train: torch.Tensor, labels: torch.Tensor, query: torch.Tensor, k: int) -> int:
    """The vote of the k nearest in plain Python; of equal votes the smallest class, as scikit-learn has it."""
    nearest = sorted(range(len(train)), key=lambda i: float((train[i] - query).square().sum()))[:k]
    votes = [int(labels[i]) for i in nearest]
    return min(set(votes), key=lambda c: (-votes.count(c), c))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("kind", [PixelKNN, EmbeddingKNN])
def test_knn_is_the_vote_of_the_nearest(kind: type[PixelKNN], k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(60, 2, 3, generator=generator), torch.randn(20, 2, 3, generator=generator)
    labels = torch.randint(4, (60,), generator=generator)
    found = kind(k=k).predict(train, labels, test)
    assert found.tolist() == [loop_knn(train, labels, query, k) for query in test]


def test_pca_knn_is_the_vote_among_the_first_components_of_the_training_objects(data: LabelledData) -> None:
    train, test = data.store.inputs[data.train_rows[:300]], data.store.inputs[data.test_rows[:30]]
    labels = data.store.labels[data.train_rows[:300]]
    flat = train.flatten(1).double()
    centre = flat.mean(0)
    _, _, directions = np.linalg.svd((flat - centre).numpy(), full_matrices=False)
    basis = torch.from_numpy(directions[:5].T.copy())
    projected = (flat - centre) @ basis
    expected = [loop_knn(projected, labels, query, 3) for query in (test.flatten(1).double() - centre) @ basis]
    assert PCAKNN(k=3, components=5).predict(train, labels, test).tolist() == expected


def test_of_embeddings_is_only_the_one() -> None:
    assert EmbeddingKNN(k=1).of_embeddings
    assert not any(b.of_embeddings for b in (PixelKNN(k=1), PCAKNN(k=1, components=2), TangentDistanceKNN(**TANGENT)))


class TestTangentDistance:
    def images(self, count: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return smoothed(torch.rand(count, 1, 12, 12, generator=generator, dtype=torch.float64), 1.5)

    def test_is_the_least_squares_distance_of_the_tangent_planes(self) -> None:
        queries, candidates = self.images(3), self.images(8, seed=1).view(2, 4, 1, 12, 12).repeat(2, 1, 1, 1, 1)[:3]
        found = TangentDistanceKNN(**TANGENT).distances(queries, candidates)
        for b in range(3):
            for i in range(4):
                x, y = queries[b], candidates[b, i]
                planes = np.hstack([np.linalg.qr(tangents(image[None])[0].numpy())[0] for image in (x, y)])
                costs = np.vstack([planes, 0.1 * np.eye(14)])  # the square root of the stiffness
                residual = np.concatenate([(x - y).flatten().numpy(), np.zeros(14)])
                best = np.linalg.lstsq(costs, residual, rcond=None)[0]
                assert float(found[b, i]) == pytest.approx(float(((residual - costs @ best) ** 2).sum()), rel=1e-9)

    def test_stiffness_leads_back_to_the_euclidean_distance(self) -> None:
        queries, candidates = self.images(2), self.images(4, seed=1).view(2, 2, 1, 12, 12)
        stiff = TangentDistanceKNN(**{**TANGENT, "stiffness": 1e9}).distances(queries, candidates)
        torch.testing.assert_close(stiff, (queries[:, None] - candidates).square().sum(dim=(2, 3, 4)))

    def test_is_symmetric_and_0_for_the_same_image(self) -> None:
        one, other = self.images(1), self.images(1, seed=1)
        distance = TangentDistanceKNN(**TANGENT).distances
        torch.testing.assert_close(distance(one, other[None]), distance(other, one[None]))
        assert abs(float(distance(one, one[None]))) < 1e-12

    @pytest.mark.parametrize(
        ("number", "matrix"),
        [
            (0, lambda e: [[1, 0, e], [0, 1, 0]]),
            (1, lambda e: [[1, 0, 0], [0, 1, e]]),
            (2, lambda e: [[1 + e, 0, 0], [0, 1 + e, 0]]),
            (3, lambda e: [[1, e, 0], [-e, 1, 0]]),
            (4, lambda e: [[1 + e, 0, 0], [0, 1 - e, 0]]),
            (5, lambda e: [[1, e, 0], [e, 1, 0]]),
        ],
    )
    def test_tangents_are_the_derivatives_of_the_moves(
        self, number: int, matrix: Callable[[float], list[list[float]]]
    ) -> None:
        side, step = 41, 1e-3
        places = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        x, y = places[None, :], places[:, None]
        image = (-((x - 3) ** 2 / 40 + (y + 2) ** 2 / 70 + (x * y) / 90)).exp()[None, None]

        def moved(amount: float) -> torch.Tensor:
            """The same bump at moved coordinates, in pixels."""
            (a, b, c), (d, e, f) = matrix(amount)
            u, v = a * x + b * y + c, d * x + e * y + f
            return (-((u - 3) ** 2 / 40 + (v + 2) ** 2 / 70 + (u * v) / 90)).exp()

        expected = (moved(step) - moved(-step)) / (2 * step)
        inner = slice(5, -5)
        found = tangents(image)[0, :, number].view(side, side)
        assert (found - expected)[inner, inner].abs().max() < 0.05 * expected[inner, inner].abs().max()

    def test_smoothing_is_a_gaussian_of_the_deviation_asked_for(self) -> None:
        point = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
        point[..., 10, 10] = 1
        spread = smoothed(point, 1.5)[0, 0]
        places = torch.arange(21, dtype=torch.float64) - 10
        assert float(spread.sum()) == pytest.approx(1)
        assert math.sqrt(float((spread.sum(0) * places.square()).sum())) == pytest.approx(1.5, rel=0.02)
        torch.testing.assert_close(spread, spread.T)

    def test_a_shifted_image_is_near_by_tangents_and_far_by_pixels(self) -> None:
        one, other = self.images(1), self.images(1, seed=1)
        moved = F.pad(one, [1, 0, 0, 0])[..., :12]
        distance = TangentDistanceKNN(**TANGENT).distances
        kept = float(distance(one, moved[None]) / (one - moved).square().sum())
        assert kept < 0.6 * float(distance(one, other[None]) / (one - other).square().sum())

    def test_is_better_than_pixels_on_few_real_digits(self, data: LabelledData) -> None:
        tangent = TangentDistanceKNN(k=1, candidates=30, sigma=0.7, stiffness=0.01)
        assert accuracy(tangent, data, train=150) > accuracy(PixelKNN(k=1), data, train=150)

    def test_empty_images_are_at_a_finite_distance(self) -> None:
        empty = torch.zeros(1, 1, 6, 6)
        found = TangentDistanceKNN(**TANGENT).distances(empty, torch.stack([empty, empty + 1], dim=1))
        assert found.isfinite().all()

    def test_of_equal_votes_the_nearer_wins(self) -> None:
        train = torch.zeros(4, 1, 8, 8)
        train[0, 0, 1, 1] = train[1, 0, 6, 6] = train[2, 0, 1, 6] = train[3, 0, 6, 1] = 100
        query = train[2:3].clone()
        for k in (2, 4):
            baseline = TangentDistanceKNN(k=k, candidates=4, sigma=0.5, stiffness=10.0)
            assert baseline.predict(train, torch.tensor([0, 1, 2, 3]), query).tolist() == [2]

    def test_reads_the_real_mnist(self, mnist_root: str) -> None:
        data = torchvision_images(name="mnist", root=mnist_root, download=False)
        tangent = TangentDistanceKNN(k=1, candidates=30, sigma=1.0, stiffness=0.01)
        assert accuracy(tangent, data, train=3000, test=300) > accuracy(PixelKNN(k=1), data, train=3000, test=300)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: PixelKNN(k=11), (1, 8, 8), "k=11: must be at most 10"),
        (lambda: PixelKNN(k=1), {"words": (5,), "picture": (1, 8, 8)}, "objects of shape .*: must be one array"),
        (lambda: PCAKNN(k=1, components=1), ((5,), (1, 8, 8)), "objects of shape .*: must be one array"),
        (lambda: EmbeddingKNN(k=11), {"words": (5,)}, "k=11: must be at most 10"),
        (lambda: PCAKNN(k=1, components=11), (1, 8, 8), "components=11: must be at most 10"),
        (lambda: PCAKNN(k=1, components=6), (5,), "components=6: must be at most 5"),
        (lambda: TangentDistanceKNN(**TANGENT), (5,), r"objects of shape \(5,\): must be images"),
        (lambda: TangentDistanceKNN(**{**TANGENT, "candidates": 20}), (1, 8, 8), "candidates=20: must be at most 10"),
    ],
)
def test_must_fit_the_training_set(make: Callable[[], Baseline], shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().check_fit(train_size=10, shape=shape)


@pytest.mark.parametrize("k", [0, 1.5, "abc"])
@pytest.mark.parametrize(
    "make",
    [PixelKNN, EmbeddingKNN, lambda k: PCAKNN(k=k, components=2), lambda k: TangentDistanceKNN(**{**TANGENT, "k": k})],
)
def test_k_must_be_a_whole_number_above_zero(make: Callable[..., Baseline], k: object) -> None:
    with pytest.raises(ValueError, match=f"k={k}: must be a whole number"):
        make(k=k)


def test_values_of_the_tangent_distance_are_checked() -> None:
    for name, value in (("candidates", 0), ("sigma", 0), ("stiffness", 1e-5), ("k", 11)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            TangentDistanceKNN(**{**TANGENT, name: value})
