"""Layers that read sequences step by step, each from a state of zeros or one that it is given.

Where torch has a cell its own layer is used, which is fused; others go through `memlab.functional` a step at a time.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.checks import check_choice
from memlab.functional.recurrent import Activation

ACTIVATIONS: dict[str, Activation] = {"tanh": torch.tanh, "relu": torch.relu}
VARIANTS = ("original", "cudnn")
FORGET_BIAS = 1.0
"""Of LSTMs at first, so that the cell is kept until something else is learned (Gers et al. 2000)."""


class RecurrentLayer(nn.Module):
    """Reads sequences (B, T, features); a subclass says how."""

    def forward(self, steps: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Outputs of all steps, and the state after the last.

        Args:
            steps: (B, T, features).
            state: as it was given last; None for zeros.

        Returns:
            (B, T, H) outputs, and a state: a tensor or a tuple of these.
        """
        raise NotImplementedError


class FusedLayer(RecurrentLayer):
    """A layer of torch's.

    Args:
        layer: takes sequences (B, T, features).
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, steps: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See `RecurrentLayer.forward`."""
        outputs, state = self.layer(steps, state)
        return outputs, state


class SteppedLayer(RecurrentLayer):
    """A layer that goes a step at a time; a subclass says what a step is.

    Args:
        features: of a step.
        size: H.
        gates: numbers that the inputs drive, for each of H.
        states: of size H that a state is made of; the first is the output.
    """

    def __init__(self, features: int, size: int, *, gates: int, states: int = 1) -> None:
        super().__init__()
        self._size, self._states = size, states
        self.inputs = nn.Linear(features, gates * size)
        self.recurrent = nn.Parameter(torch.empty(gates * size, size))
        bound = 1 / math.sqrt(size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def step(self, driven: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state.

        Args:
            driven: (B, gates H) what the inputs make of a step.
            state: (B, H) each.
        """
        raise NotImplementedError

    def forward(self, steps: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See `RecurrentLayer.forward`."""
        driven = self.inputs(steps)
        if state is None:
            state = (driven.new_zeros(len(driven), self._size),) * self._states
        outputs = []
        for each in driven.unbind(1):
            state = self.step(each, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state


class JordanLayer(SteppedLayer):
    """Jordan's, whose outputs are as many as its hidden numbers; see `memlab.functional.jordan`.

    Args:
        features: of a step.
        size: H.
        nonlinearity: ``tanh`` or ``relu``.
    """

    def __init__(self, features: int, size: int, *, nonlinearity: str) -> None:
        super().__init__(features, size, gates=1)
        self._activation = ACTIVATIONS[check_choice("nonlinearity", nonlinearity, ACTIVATIONS)]
        self.output = nn.Linear(size, size)

    def step(self, driven: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `SteppedLayer.step`."""
        output = self.output.weight, self.output.bias
        return (functional.jordan(driven, state[0], self.recurrent, *output, activation=self._activation),)


class PeepholeLayer(SteppedLayer):
    """An LSTM whose gates see the cell; see `memlab.functional.peephole`.

    Args:
        features: of a step.
        size: H.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__(features, size, gates=4, states=2)
        self.peepholes = nn.Parameter(torch.zeros(3, size))
        _open_forget_gates(self.inputs)

    def step(self, driven: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `SteppedLayer.step`."""
        h, c = state
        return functional.peephole(driven, (h, c), self.recurrent, self.peepholes)


class GRULayer(SteppedLayer):
    """A GRU with the reset before the matrix; see `memlab.functional.gru`.

    Args:
        features: of a step.
        size: H.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__(features, size, gates=3)

    def step(self, driven: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `SteppedLayer.step`."""
        return (functional.gru(driven, state[0], self.recurrent),)


def elman_layer(features: int, size: int, *, nonlinearity: str) -> RecurrentLayer:
    """Elman's network; see `memlab.functional.elman`.

    Args:
        features: of a step.
        size: H.
        nonlinearity: ``tanh`` or ``relu``.
    """
    check_choice("nonlinearity", nonlinearity, ACTIVATIONS)
    return FusedLayer(nn.RNN(features, size, nonlinearity=nonlinearity, batch_first=True))


def lstm_layer(features: int, size: int) -> RecurrentLayer:
    """An LSTM; see `memlab.functional.lstm`.

    Args:
        features: of a step.
        size: H.
    """
    layer = nn.LSTM(features, size, batch_first=True)
    _open_forget_gates(layer)
    return FusedLayer(layer)


def gru_layer(features: int, size: int, *, variant: str) -> RecurrentLayer:
    """A GRU; see `memlab.functional.gru` and `memlab.functional.cudnn_gru`.

    Args:
        features: of a step.
        size: H.
        variant: ``original``, the reset before the matrix, or ``cudnn``, behind it.
    """
    if check_choice("variant", variant, VARIANTS) == "cudnn":
        return FusedLayer(nn.GRU(features, size, batch_first=True))
    return GRULayer(features, size)


@torch.no_grad()
def _open_forget_gates(layer: nn.Module) -> None:
    """Set what forget gates, the second of four, begin with; of biases that are added up the others are 0 there."""
    first, *others = (each for name, each in layer.named_parameters() if "bias" in name)
    first.chunk(4)[1].fill_(FORGET_BIAS)
    for each in others:
        each.chunk(4)[1].zero_()
