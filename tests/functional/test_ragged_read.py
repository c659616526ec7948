"""Reads of memories of different sizes: those of a plain loop over queries, in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from memlab.functional.ragged_read import ragged_softmax, ragged_sums

SIZES = [3, 1, 0, 5]


def cells() -> torch.Tensor:
    return torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))


@pytest.mark.parametrize("level", [0.0, -1e3, 1e3])
def test_weights_and_sums_are_those_of_a_plain_loop(level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(sum(SIZES), generator=generator, dtype=torch.float64) * 5 + level
    values = torch.randn(sum(SIZES), 2, generator=generator, dtype=torch.float64)
    weights = ragged_softmax(scores, cells(), len(SIZES))
    sums = ragged_sums(weights, values, cells(), len(SIZES))
    start = 0
    for query, size in enumerate(SIZES):
        own = scores[start : start + size].tolist()
        shares = [math.exp(each - max(own)) for each in own]
        expected = [share / math.fsum(shares) for share in shares]
        assert weights[start : start + size].tolist() == pytest.approx(expected, rel=1e-12)
        for feature in range(2):
            held = values[start : start + size, feature].tolist()
            total = math.fsum(p * v for p, v in zip(expected, held, strict=True))
            assert float(sums[query, feature]) == pytest.approx(total, rel=1e-12, abs=1e-15)
        start += size


def test_gradients() -> None:
    scores = torch.randn(sum(SIZES), dtype=torch.float64, requires_grad=True)
    values = torch.randn(sum(SIZES), 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z, v: ragged_sums(ragged_softmax(z, cells(), len(SIZES)), v, cells(), len(SIZES)), (scores, values)
    )
