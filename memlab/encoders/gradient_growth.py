"""How the gradient of a step grows, or vanishes, with the steps between it and the last (Bengio et al. 1994)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.data.sequences import there
from memlab.encoders.recurrent import Recurrent

WEIGHTS = (0.5, 0.9, 1.1, 1.5)
"""Recurrent weights of the simplest network, whose gradient is a power of one."""
STEPS = 128
"""Between the first step and the last."""
VECTORS = 16
"""By which a Jacobian is measured."""


def growth_of_weight(weight: float, *, steps: int = STEPS) -> Tensor:
    """(steps + 1,) ``d h_T / d x_{T-k}`` for k = 0, 1, ..., of ``h_t = x_t + weight h_{t-1}``: ``weight^k``.

    >>> growth_of_weight(0.5, steps=2)
    tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    recurrent = torch.tensor([[weight]], dtype=torch.float64)
    inputs = torch.zeros(steps + 1, 1, 1, dtype=torch.float64, requires_grad=True)
    h = torch.zeros(1, 1, dtype=torch.float64)
    for step in inputs:
        h = functional.elman(step, h, recurrent, activation=nn.Identity())
    (gradient,) = torch.autograd.grad(h.sum(), inputs)
    return gradient.flatten().flip(0)


def growth_of_encoder(encoder: nn.Module, sequences: Tensor) -> Tensor | None:
    """(T,) how large ``d h_T / d x_{T-k}`` is for k = 0, 1, ..., as a share of k = 0; None without a recurrent layer.

    h are the outputs of the first recurrent layer of an encoder in its first direction, x its inputs, of texts the
    vectors of tokens. How large a Jacobian J is, is told by the root of the mean of ``|J^T v|^2`` over sequences and
    vectors v of ones and minus ones, its Frobenius norm but for chance (Hutchinson 1989).

    Args:
        encoder: of sequences; it is left as it is, and computes in float64.
        sequences: (B, T, m) normalised, all of T steps.
    """
    recurrent = next((module for module in encoder.modules() if isinstance(module, Recurrent)), None)
    if recurrent is None:
        return None
    recurrent = copy.deepcopy(recurrent).cpu().double().eval()
    given = sequences.cpu().double()
    assert bool(there(given).all()), "of one length"
    with torch.no_grad():
        steps = given if recurrent.vectors is None else recurrent.vectors(given)
    steps = steps.requires_grad_()
    layer = recurrent.layers[0][0]  # type: ignore[index]
    last = layer(steps)[0][:, -1]
    generator = torch.Generator().manual_seed(0)
    squares = torch.zeros(steps.shape[1], dtype=torch.float64)
    for _ in range(VECTORS):
        v = torch.randint(2, last.shape, generator=generator).double().mul_(2).sub_(1)
        (gradient,) = torch.autograd.grad(last, steps, v, retain_graph=True)
        squares += gradient.square().sum((0, 2))
    growth = squares.flip(0).sqrt()
    return growth / growth[0]
