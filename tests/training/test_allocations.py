"""What is taken of memory, against arithmetic; and what is extrapolated, against the large computation itself."""

from __future__ import annotations

import gc
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from memlab.training.allocations import Allocations, Mark, Size, extrapolated, recorded


def test_products_are_counted_as_arithmetic_counts_them() -> None:
    x, w = torch.randn(100, 30), torch.randn(30, 20)

    def compute(mark: Mark) -> Tensor:
        first = x @ w  # 8,000 bytes
        second = first.relu()  # 8,000 more, and those before go
        del first
        mark()
        wide = torch.cat([second, second, second])  # 24,000
        del second
        return wide.view(20, 300).sum()  # 4; a view takes nothing

    found = recorded(compute)
    assert list(found.sizes) == [8000, 8000, 24000, 4]
    assert (found.peak_before_mark(), found.peak()) == (16000, 32000)
    assert found.order == [0, 1, ~0, 2, ~1, 3, ~2, ~3]
    assert gc.isenabled()


def test_the_graph_holds_what_autograd_saves() -> None:
    x, layer = torch.randn(64, 10), nn.Linear(10, 50)

    def compute(mark: Mark) -> None:
        made = layer(x).exp().sum()  # exp saves its result, and what it is of is let go
        mark()
        made.backward()
        layer.zero_grad()

    found = recorded(compute)
    of_layer, of_sum = 64 * 50 * 4, 4
    assert found.peak_before_mark() == 2 * of_layer
    # The gradient of exp beside its result, with the sum and its gradient, which is 1; the weight's are smaller.
    assert found.peak() == 2 * of_layer + 2 * of_sum


def step(size: Size, mark: Mark) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 8), nn.LayerNorm(8))
    query, keys = (net(torch.randn(number, 1, 8, 8)) for number in size)
    loss = (query @ keys.mT).exp().sum(1).log().mean()
    mark()
    loss.backward()


@pytest.mark.parametrize("size", [Size(64, 700), Size(300, 20), Size(5, 3)])
def test_four_small_steps_tell_what_a_large_one_takes(size: Size) -> None:
    small = {Size(*each): recorded(partial(step, Size(*each))) for each in product((2, 4), (4, 8))}
    found, large = extrapolated(small, size), recorded(partial(step, size))
    assert found.order == large.order
    assert found.sizes == pytest.approx(large.sizes)
    assert found.peak() == pytest.approx(large.peak())
    assert found.peak_before_mark() == pytest.approx(large.peak_before_mark())


def test_where_the_order_is_another_each_time_the_peak_is_what_is_extrapolated() -> None:
    def of(queries: int, objects: int) -> Allocations:
        order = [0, ~0, 1] if queries == 2 else [0, 1, ~0]
        return Allocations(order, [10 * objects, queries], mark=1)

    small = {Size(q, m): of(q, m) for q, m in product((2, 4), (4, 8))}
    found = extrapolated(small, Size(4, 100))
    assert (found.peak_before_mark(), found.peak()) == (1000, 1004)


def test_a_matrix_made_in_tiles_is_no_larger_than_a_tile() -> None:
    small = {Size(q, m): Allocations([0], [4 * q * m + 8 * m]) for q, m in product((2, 4), (4, 8))}
    assert extrapolated(small, Size(100, 1000)).peak() == 4 * 100_000 + 8000
    assert extrapolated(small, Size(100, 1000), largest_product=5000).peak() == 4 * 5000 + 8000
