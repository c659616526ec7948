"""Steps of recurrent cells against plain loops in float64, and against torch where it has the same cell."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memlab import functional

B, M, H = 3, 4, 5
Vector = list[float]


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def times(matrix: Tensor, vector: Vector) -> Vector:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix.tolist()]


def plus(*vectors: Vector) -> Vector:
    return [math.fsum(each) for each in zip(*vectors, strict=True)]


def gates(number: int, place: int) -> slice:
    return slice(place * number, (place + 1) * number)


class Drawn:
    """Matrices of a cell with so many gates, inputs and states."""

    def __init__(self, number: int) -> None:
        self.w, self.u = drawn(number * H, M, seed=0), drawn(number * H, H, seed=1)
        self.b, self.x = drawn(number * H, seed=2), drawn(B, M, seed=3)
        self.h, self.c = drawn(B, H, seed=4), drawn(B, H, seed=5)
        self.driven = self.x @ self.w.mT + self.b

    def gate(self, place: int, x: Vector, h: Vector) -> Vector:
        """``W x + U h + b`` of one gate."""
        of = gates(H, place)
        return plus(times(self.w[of], x), times(self.u[of], h), self.b[of].tolist())


def by_loop(cell: Drawn, step: Callable[[Vector, Vector, Vector], Vector]) -> Tensor:
    rows = zip(cell.x.tolist(), cell.h.tolist(), cell.c.tolist(), strict=True)
    return torch.tensor([step(*each) for each in rows], dtype=torch.float64)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_elman(name: str) -> None:
    cell, of = Drawn(1), {"tanh": math.tanh, "relu": lambda x: max(x, 0.0)}[name]
    found = functional.elman(cell.driven, cell.h, cell.u, activation=getattr(torch, name))
    assert_same(found, by_loop(cell, lambda x, h, _: [of(each) for each in cell.gate(0, x, h)]))
    torchs = nn.RNNCell(M, H, nonlinearity=name).double()
    expected = torchs(cell.x, cell.h)
    driven = nn.functional.linear(cell.x, torchs.weight_ih, torchs.bias_ih + torchs.bias_hh)
    assert_same(functional.elman(driven, cell.h, torchs.weight_hh, activation=getattr(torch, name)), expected)


def test_jordan_is_fed_its_output() -> None:
    cell, v, c = Drawn(1), drawn(2, H, seed=6), drawn(2, seed=7)
    y, u = drawn(B, 2, seed=8), drawn(H, 2, seed=9)
    expected = []
    for x, before in zip(cell.x.tolist(), y.tolist(), strict=True):
        hidden = [math.tanh(each) for each in plus(times(cell.w, x), times(u, before), cell.b.tolist())]
        expected.append([math.tanh(each) for each in plus(times(v, hidden), c.tolist())])
    assert_same(functional.jordan(cell.driven, y, u, v, c), torch.tensor(expected, dtype=torch.float64))


def loop_lstm(cell: Drawn, peepholes: Tensor) -> tuple[Tensor, Tensor]:
    """By the formulas of Gers and Schmidhuber 2000; without peepholes those of an LSTM."""
    p_i, p_f, p_o = peepholes.tolist()

    def cells(x: Vector, h: Vector, c: Vector) -> Vector:
        i, f, g = (cell.gate(place, x, h) for place in range(3))
        return [sigma(f[k] + p_f[k] * c[k]) * c[k] + sigma(i[k] + p_i[k] * c[k]) * math.tanh(g[k]) for k in range(H)]

    def outputs(x: Vector, h: Vector, c: Vector) -> Vector:
        o, new = cell.gate(3, x, h), cells(x, h, c)
        return [sigma(o[k] + p_o[k] * new[k]) * math.tanh(new[k]) for k in range(H)]

    return by_loop(cell, outputs), by_loop(cell, cells)


def test_lstm() -> None:
    cell = Drawn(4)
    found = functional.lstm(cell.driven, (cell.h, cell.c), cell.u)
    torchs = nn.LSTMCell(M, H, bias=False).double()
    of_torch = functional.lstm(cell.x @ torchs.weight_ih.mT, (cell.h, cell.c), torchs.weight_hh)
    for ours, expected in zip(found, loop_lstm(cell, torch.zeros(3, H)), strict=True):
        assert_same(ours, expected)
    for ours, expected in zip(of_torch, torchs(cell.x, (cell.h, cell.c)), strict=True):
        assert_same(ours, expected)


def test_peephole_gates_see_the_cell() -> None:
    cell, peepholes = Drawn(4), drawn(3, H, seed=6)
    found = functional.peephole(cell.driven, (cell.h, cell.c), cell.u, peepholes)
    for ours, expected in zip(found, loop_lstm(cell, peepholes), strict=True):
        assert_same(ours, expected)


def test_gru_resets_before_the_matrix() -> None:
    cell = Drawn(3)

    def step(x: Vector, h: Vector, _: Vector) -> Vector:
        r, z = ([sigma(each) for each in cell.gate(place, x, h)] for place in (0, 1))
        g = [math.tanh(each) for each in cell.gate(2, x, [a * b for a, b in zip(r, h, strict=True)])]
        return [(1 - z[k]) * h[k] + z[k] * g[k] for k in range(H)]

    assert_same(functional.gru(cell.driven, cell.h, cell.u), by_loop(cell, step))


def test_gru_of_cudnn_resets_behind_the_matrix() -> None:
    cell, bias = Drawn(3), drawn(3 * H, seed=6)

    def step(x: Vector, h: Vector, _: Vector) -> Vector:
        parts = [bias[gates(H, place)].tolist() for place in range(3)]
        r, z = ([sigma(each) for each in plus(cell.gate(place, x, h), parts[place])] for place in (0, 1))
        fed = plus(times(cell.u[gates(H, 2)], h), parts[2])
        given = cell.gate(2, x, [0.0] * H)
        g = [math.tanh(given[k] + r[k] * fed[k]) for k in range(H)]
        return [(1 - z[k]) * g[k] + z[k] * h[k] for k in range(H)]

    assert_same(functional.cudnn_gru(cell.driven, cell.h, cell.u, bias), by_loop(cell, step))
    torchs = nn.GRUCell(M, H).double()
    driven = nn.functional.linear(cell.x, torchs.weight_ih, torchs.bias_ih)
    found = functional.cudnn_gru(driven, cell.h, torchs.weight_hh, torchs.bias_hh)
    assert_same(found, torchs(cell.x, cell.h))


def test_gradients() -> None:
    peepholes, v, c, bias = drawn(3, H, seed=6), drawn(H, H, seed=7), drawn(H, seed=8), drawn(3 * H, seed=9)
    one, three, four = (Drawn(number) for number in (1, 3, 4))

    def given(cell: Drawn, *more: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.detach().requires_grad_() for each in (cell.driven, cell.h, cell.c, cell.u, *more))

    check = torch.autograd.gradcheck
    assert check(lambda d, h, _, u: functional.elman(d, h, u), given(one))
    assert check(lambda d, h, _, u, *out: functional.jordan(d, h, u, *out), given(one, v, c))
    assert check(lambda d, h, c, u: functional.lstm(d, (h, c), u), given(four))
    assert check(lambda d, h, c, u, p: functional.peephole(d, (h, c), u, p), given(four, peepholes))
    assert check(lambda d, h, _, u: functional.gru(d, h, u), given(three))
    assert check(lambda d, h, _, u, b: functional.cudnn_gru(d, h, u, b), given(three, bias))
