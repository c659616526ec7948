"""What is made of sequences of different lengths against plain loops over each alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from memlab import functional

LENGTHS, T, H = [5, 1, 3], 6, 2
PRESENT = torch.arange(T) < torch.tensor(LENGTHS)[:, None]


def steps() -> Tensor:
    """Behind the end of each there is what no result may have in it."""
    drawn = torch.randn(3, T, H, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn.masked_fill(~PRESENT[..., None], 1e6)


def scores() -> Tensor:
    return torch.randn(3, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def weighted(own: list[list[float]], weights: list[float]) -> list[float]:
    return [sum(a * step[k] for a, step in zip(weights, own, strict=True)) / sum(weights) for k in range(H)]


def by_attention(own: list[list[float]], row: int) -> list[float]:
    return weighted(own, [math.exp(score) for score in scores()[row, : len(own)].tolist()])


POOLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[list[list[float]], int], list[float]]]] = {
    "last": (lambda h: functional.pool_last(h, PRESENT), lambda own, _: own[-1]),
    "mean": (lambda h: functional.pool_mean(h, PRESENT), lambda own, _: weighted(own, [1.0] * len(own))),
    "max": (lambda h: functional.pool_max(h, PRESENT), lambda own, _: [max(each) for each in zip(*own, strict=True)]),
    "attention": (lambda h: functional.pool_attention(h, scores(), PRESENT), by_attention),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_of_the_steps_that_there_are(pooling: str) -> None:
    ours, loop = POOLINGS[pooling]
    own = [steps()[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    expected = [loop(each, row) for row, each in enumerate(own)]
    torch.testing.assert_close(ours(steps()), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradient_of_pooling_is_of_the_steps_that_there_are(pooling: str) -> None:
    h = steps().masked_fill(~PRESENT[..., None], 0.5).requires_grad_()
    assert torch.autograd.gradcheck(POOLINGS[pooling][0], h)
    (gradient,) = torch.autograd.grad(POOLINGS[pooling][0](h).sum(), h)
    assert (gradient[~PRESENT] == 0).all()


@pytest.mark.parametrize("reach", [1, 2, 7])
def test_window_is_the_weighted_mean_of_what_is_near(reach: int) -> None:
    a = [1.0 + place for place in range(2 * reach + 1)]
    weights = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(3, T, H, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        for k in range(length):
            near = [place for place in range(k - reach, k + reach + 1) if 0 <= place < length]
            own = [steps()[row, place].tolist() for place in near]
            expected[row, k] = torch.tensor(weighted(own, [a[place - k + reach] for place in near]))
    torch.testing.assert_close(functional.window(steps(), weights, PRESENT), expected)
    few = steps().masked_fill(~PRESENT[..., None], 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, a: functional.window(h, a, PRESENT), (few, weights))


def test_backwards_of_backwards_is_as_it_was() -> None:
    turned = functional.backwards(steps(), PRESENT)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(turned[row, :length], steps()[row, :length].flip(0))
    torch.testing.assert_close(functional.backwards(turned, PRESENT), steps())
