"""What encoders cost: formulas of cells beside the cells themselves and a count of their products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from memlab import functional
from memlab.encoders import GRU, LSTM, MLP, Elman, Jordan, PeepholeLSTM
from memlab.encoders.costs import cost_of, formula_of

M, N, STEPS = 5, 7, 3
OPTIONS: dict[str, Any] = {
    "input_shape": (STEPS, M), "hidden_size": N, "layers": 1, "bidirectional": False, "pooling": "last", "window": 0,
    "truncate": None, "embedding_size": 4,
}  # fmt: skip
ENCODERS: dict[str, tuple[Callable[..., nn.Module], int, int]] = {
    "elman": (lambda **o: Elman(nonlinearity="tanh", **o), N**2 + M * N + N + N, N**2 + M * N),
    "jordan": (lambda **o: Jordan(nonlinearity="tanh", **o), 2 * N**2 + M * N + 2 * N, 2 * N**2 + M * N),
    "lstm": (LSTM, 4 * (N**2 + M * N + N) + 4 * N, 4 * (N**2 + M * N)),
    "peephole": (PeepholeLSTM, 4 * (N**2 + M * N + N) + 3 * N, 4 * (N**2 + M * N)),
    "gru": (lambda **o: GRU(variant="original", **o), 3 * (N**2 + M * N + N), 3 * (N**2 + M * N)),
    "cudnn": (lambda **o: GRU(variant="cudnn", **o), 3 * (N**2 + M * N + N) + 3 * N, 3 * (N**2 + M * N)),
}
"""Parameters of a cell and multiplications of a step as textbooks have them, and torch's second bias."""


@pytest.mark.parametrize("name", ENCODERS)
def test_the_formulas_are_those_of_the_real_cells(name: str) -> None:
    make, parameters, multiplications = ENCODERS[name]
    encoder = make(**OPTIONS)
    projection = 4 * N
    cost = cost_of(encoder, (STEPS, M))
    assert cost.cell is not None
    assert cost.step is not None
    trunk: Any = encoder.trunk
    assert cost.cell(M, N) == parameters == sum(each.numel() for each in trunk.parameters())
    assert cost.parameters == parameters + projection + 4
    assert cost.step(M, N) == multiplications
    assert cost.multiplications == STEPS * multiplications + projection
    assert all(each.device.type == "cpu" for each in encoder.parameters())
    both = make(**OPTIONS | {"bidirectional": True, "layers": 2})
    upper = cost.cell(2 * N, N)
    assert cost_of(both, (STEPS, M)).parameters == 2 * (parameters + upper) + 2 * projection + 4
    assert (
        cost_of(both, (STEPS, M)).multiplications
        == STEPS * 2 * (multiplications + cost.step(2 * N, N)) + 2 * projection
    )


def test_the_step_of_an_lstm_multiplies_each_entry_of_its_matrices_once() -> None:
    products = 0

    class Counted(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal products
            if func in (torch.Tensor.matmul, torch.Tensor.__matmul__):
                products += args[0].shape[0] * args[0].shape[1] * args[1].shape[1]
            return super().__torch_function__(func, types, args, kwargs)

    x, u, w = (torch.randn(*size).as_subclass(Counted) for size in ((1, M), (4 * N, N), (4 * N, M)))
    zeros = torch.zeros(1, N).as_subclass(Counted)
    functional.lstm(x @ w.mT, (zeros, zeros), u)
    assert products == ENCODERS["lstm"][2]


def test_an_encoder_without_a_cell_is_counted_all_the_same() -> None:
    encoder = MLP(input_shape=(M,), embedding_size=4, hidden_sizes=[N])
    cost = cost_of(encoder, (M,))
    assert (cost.cell, cost.step, formula_of(encoder)) == (None, None, None)
    norm = 2 * N
    assert (cost.parameters, cost.multiplications) == ((M + 1) * N + norm + (N + 1) * 4, M * N + N * 4)
