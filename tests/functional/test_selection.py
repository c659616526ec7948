"""Choosing few objects: against the definitions in plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from memlab.functional import class_turns, greedy_medoids


def distances_of(size: int, *, seed: int) -> list[list[float]]:
    points = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    return [[math.dist(a, b) ** 2 for b in points] for a in points]


def double(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def total(nearest: list[float], distances: list[list[float]], chosen: list[int]) -> float:
    """The sum over all objects of the distance from the nearest chosen one, by its definition."""
    return math.fsum(min([nearest[i], *(distances[i][s] for s in chosen)]) for i in range(len(nearest)))


class TestGreedyMedoids:
    @pytest.mark.parametrize("seed", range(4))
    def test_each_step_is_the_best_of_all(self, seed: int) -> None:
        distances = distances_of(17, seed=seed)
        nearest = distances[3]
        chosen, gains = greedy_medoids(double(distances), double(nearest), 9)
        for step in range(9):
            before = chosen[:step].tolist()
            sums = [total(nearest, distances, [*before, j]) if j not in before else math.inf for j in range(17)]
            assert sums[chosen[step]] == pytest.approx(min(sums))  # two objects near each other may gain the same
            assert gains[step] == pytest.approx(total(nearest, distances, before) - min(sums), abs=1e-9)

    def test_gains_go_down_and_reach_what_is_promised(self) -> None:
        distances = distances_of(11, seed=5)
        nearest = distances[0]
        chosen, gains = greedy_medoids(double(distances), double(nearest), 3)
        assert gains.tolist() == sorted(gains.tolist(), reverse=True)
        best = min(total(nearest, distances, list(some)) for some in itertools.combinations(range(11), 3))
        start = total(nearest, distances, [])
        assert start - total(nearest, distances, chosen.tolist()) >= (1 - 1 / math.e) * (start - best)

    def test_all_are_chosen_in_the_end_also_those_that_are_the_same(self) -> None:
        distances = torch.zeros(6, 6)
        chosen, gains = greedy_medoids(distances, torch.zeros(6), 6)
        assert sorted(chosen.tolist()) == list(range(6))
        assert gains.tolist() == [0] * 6

    def test_stops_at_the_least_gain(self) -> None:
        distances = double(distances_of(12, seed=2))
        chosen, gains = greedy_medoids(distances, distances[0], 12)
        few, _ = greedy_medoids(distances, distances[0], 12, least=float(gains[4]))
        assert few.tolist() == chosen[:4].tolist()


class TestClassTurns:
    @pytest.mark.parametrize("sizes", [[7, 3, 5], [1, 1, 40], [4], [10, 10, 10]])
    def test_equals_a_plain_loop(self, sizes: list[int]) -> None:
        turns: list[int] = []
        while len(turns) < sum(sizes):
            had = [turns.count(c) for c in range(len(sizes))]
            left = [c for c in range(len(sizes)) if had[c] < sizes[c]]
            new = [c for c in left if not had[c]]
            turns.append(max(new or left, key=lambda c: (sizes[c] if new else sizes[c] / (had[c] + 0.5), -c)))
        for count in range(len(sizes), sum(sizes) + 1):
            assert class_turns(torch.tensor(sizes), count).tolist() == turns[:count]

    def test_shares_stay(self) -> None:
        sizes = torch.tensor([5000, 3000, 1500, 500])
        counts = class_turns(sizes, 100).bincount()
        assert counts.tolist() == [50, 30, 15, 5]
