"""One step of recurrent cells: what a state becomes by the next step of a sequence.

Shape legend: B sequences, H size of the state. Everywhere W is the matrix of the inputs, U that of the state, s an
activation, sigma the logistic function and * the product number by number. Of the inputs a cell is given what they
make of it, ``driven = W x + b``, which is one product for all steps of a sequence. A cell with several gates has them
side by side, in the order that its formulas have.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def elman(driven: Tensor, h: Tensor, recurrent: Tensor, *, activation: Activation = torch.tanh) -> Tensor:
    """``h' = s(W x + U h + b)`` (Elman 1990).

    Args:
        driven: (B, H) ``W x + b``.
        h: (B, H) state.
        recurrent: (H, H) U.
        activation: s.

    Returns:
        (B, H) h'.

    >>> elman(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0]]), activation=torch.relu)
    tensor([[7.]])
    """
    return activation(driven + h @ recurrent.mT)


def jordan(
    driven: Tensor,
    y: Tensor,
    recurrent: Tensor,
    output: Tensor,
    output_bias: Tensor,
    *,
    activation: Activation = torch.tanh,
) -> Tensor:
    """``h = s(W x + U y + b)``, ``y' = s(V h + c)``: the output is fed back, not the state (Jordan 1986).

    Args:
        driven: (B, H) ``W x + b``.
        y: (B, O) output of the step before.
        recurrent: (H, O) U.
        output: (O, H) V.
        output_bias: (O,) c.
        activation: s.

    Returns:
        (B, O) y'.
    """
    return activation(activation(driven + y @ recurrent.mT) @ output.mT + output_bias)


def lstm(driven: Tensor, state: tuple[Tensor, Tensor], recurrent: Tensor) -> tuple[Tensor, Tensor]:
    """``c' = sigma(f) * c + sigma(i) * tanh(g)``, ``h' = sigma(o) * tanh(c')``, with ``(i, f, g, o) = W x + U h + b``.

    Hochreiter and Schmidhuber 1997, with the forget gate f of Gers et al. 2000; torch's.

    Args:
        driven: (B, 4 H) ``W x + b``.
        state: (B, H) h and c.
        recurrent: (4 H, H) U.

    Returns:
        h' and c'.
    """
    h, c = state
    i, f, g, o = (driven + h @ recurrent.mT).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def peephole(
    driven: Tensor, state: tuple[Tensor, Tensor], recurrent: Tensor, peepholes: Tensor
) -> tuple[Tensor, Tensor]:
    """An LSTM whose gates see the cell: ``i + p_i * c``, ``f + p_f * c``, ``o + p_o * c'`` in place of i, f and o.

    Gers and Schmidhuber 2000.

    Args:
        driven: (B, 4 H) ``W x + b``, of i, f, g and o.
        state: (B, H) h and c.
        recurrent: (4 H, H) U.
        peepholes: (3, H) p_i, p_f and p_o.

    Returns:
        h' and c'.
    """
    h, c = state
    i, f, g, o = (driven + h @ recurrent.mT).chunk(4, dim=-1)
    of_i, of_f, of_o = peepholes
    c = (f + of_f * c).sigmoid() * c + (i + of_i * c).sigmoid() * g.tanh()
    return (o + of_o * c).sigmoid() * c.tanh(), c


def gru(driven: Tensor, h: Tensor, recurrent: Tensor) -> Tensor:
    """``h' = (1 - z) * h + z * g``, ``g = tanh(W_g x + U_g (r * h) + b_g)``: the reset is before the matrix.

    ``r`` and ``z`` are ``sigma(W x + U h + b)``, each with its own (Cho et al. 2014, and Chung et al. 2014 for z).

    Args:
        driven: (B, 3 H) ``W x + b``, of r, z and g.
        h: (B, H) state.
        recurrent: (3 H, H) U.

    Returns:
        (B, H) h'.
    """
    size = h.shape[-1]
    gates, of_g = driven.split([2 * size, size], dim=-1)
    r, z = (gates + h @ recurrent[: 2 * size].mT).sigmoid().chunk(2, dim=-1)
    g = (of_g + (r * h) @ recurrent[2 * size :].mT).tanh()
    return torch.lerp(h, g, z)


def cudnn_gru(driven: Tensor, h: Tensor, recurrent: Tensor, recurrent_bias: Tensor) -> Tensor:
    """``h' = (1 - z) * g + z * h``, ``g = tanh(W_g x + b_g + r * (U_g h + c_g))``: the reset is behind the matrix.

    ``r`` and ``z`` are ``sigma(W x + b + U h + c)``, each with its own; cuDNN's and torch's.

    Args:
        driven: (B, 3 H) ``W x + b``, of r, z and g.
        h: (B, H) state.
        recurrent: (3 H, H) U.
        recurrent_bias: (3 H,) c.

    Returns:
        (B, H) h'.
    """
    of_r, of_z, of_g = driven.chunk(3, dim=-1)
    by_r, by_z, by_g = (h @ recurrent.mT + recurrent_bias).chunk(3, dim=-1)
    g = (of_g + (of_r + by_r).sigmoid() * by_g).tanh()
    return torch.lerp(g, h, (of_z + by_z).sigmoid())
