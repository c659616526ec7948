"""What an encoder costs: its parameters, and the multiplications of an object; of recurrent cells by formulas too.

Multiplications are those of matrix products and convolutions. Products number by number, as of gates, are left out:
they are of order n a step, and matrix products of order n^2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from memlab.encoders.recurrent_layers import FusedLayer, GRULayer, JordanLayer, PeepholeLayer, RecurrentLayer


class Formula(NamedTuple):
    """``a n^2 + b m n + c n`` of a cell that makes m numbers of a step into a state of n.

    >>> print(Formula(4, 4, 8), "and", Formula(1, 1, 0))
    4 (n^2 + m n + 2 n) and n^2 + m n
    """

    squares: int
    products: int
    singles: int

    def __call__(self, m: int, n: int) -> int:
        """Its value."""
        return self.squares * n**2 + self.products * m * n + self.singles * n

    def __str__(self) -> str:
        common = math.gcd(*self)
        terms = zip((each // common for each in self), ("n^2", "m n", "n"), strict=True)
        text = " + ".join(f"{factor} {term}" if factor > 1 else term for factor, term in terms if factor)
        return text if common == 1 else f"{common} ({text})"


PARAMETERS: dict[type[nn.Module], Formula] = {
    nn.RNN: Formula(1, 1, 2),
    JordanLayer: Formula(2, 1, 2),
    nn.LSTM: Formula(4, 4, 8),
    PeepholeLayer: Formula(4, 4, 7),
    GRULayer: Formula(3, 3, 3),
    nn.GRU: Formula(3, 3, 6),
}
"""Of a cell. Torch's have two biases, which in RNN and LSTM are added up, so that n or 4 n of them could go."""


class Cost(NamedTuple):
    """Of an encoder, and of its first recurrent cell if it has any."""

    parameters: int
    """Those that are learned."""
    multiplications: int
    """For one object."""
    cell: Formula | None
    """Parameters of the cell."""
    step: Formula | None
    """Multiplications of one step of it: each entry of its matrices is multiplied once."""


def cost_of(encoder: nn.Module, shape: Sequence[int]) -> Cost:
    """What an encoder costs; nothing is computed for that.

    Args:
        encoder: of objects of this shape.
        shape: of one object; of a sequence (T, m).
    """
    alike = copy.deepcopy(encoder).to("meta").eval()  # there, fused layers are the products that they are made of
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        alike(torch.zeros(1, *shape, device="meta"))
    cell = formula_of(encoder)
    return Cost(
        parameters=sum(each.numel() for each in encoder.parameters() if each.requires_grad),
        multiplications=counted.get_total_flops() // 2,
        cell=cell,
        step=cell and cell._replace(singles=0),
    )


def formula_of(encoder: nn.Module) -> Formula | None:
    """Parameters of the first recurrent cell of an encoder; None if it has none that is known."""
    for layer in encoder.modules():
        if isinstance(layer, RecurrentLayer):
            return PARAMETERS.get(type(layer.layer if isinstance(layer, FusedLayer) else layer))
    return None
