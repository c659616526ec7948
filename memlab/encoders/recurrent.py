"""Recurrent encoders of sequences: layers that go from step to step, one on top of the other, maybe from both ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Required, Unpack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memlab import functional
from memlab.checks import check_switch, check_whole_number
from memlab.encoders.dropout import Dropout
from memlab.encoders.recurrent_layers import (
    JordanLayer,
    PeepholeLayer,
    RecurrentLayer,
    elman_layer,
    gru_layer,
    lstm_layer,
)
from memlab.encoders.sequences import SequenceEncoder, StepFeatures, StepOptions
from memlab.encoders.texts import TokenVectors


class RecurrentOptions(StepOptions, total=False):
    """What every recurrent encoder takes besides its own; see `RecurrentEncoder`."""

    hidden_size: Required[int]
    layers: Required[int]
    bidirectional: Required[bool]
    pooling: Required[str]
    window: Required[int]
    truncate: Required[int | None]


class Recurrent(StepFeatures):
    """The outputs of recurrent layers.

    Args:
        vectors: of tokens, which steps then are; None for steps of numbers.
        features: m, numbers of a step.
        layer: makes a layer of the numbers of its inputs and outputs.
        hidden_size, layers, bidirectional, pooling, window, truncate: see `RecurrentEncoder`.
        dropout: share of the numbers of each step dropped between layers.
    """

    def __init__(
        self,
        vectors: TokenVectors | None,
        features: int,
        *,
        layer: Callable[[int, int], RecurrentLayer],
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        pooling: str,
        window: int,
        truncate: int | None,
        dropout: float,
    ) -> None:
        check_whole_number("hidden_size", hidden_size)
        directions = 2 if check_switch("bidirectional", bidirectional) else 1
        width = directions * hidden_size
        super().__init__(vectors, width=width, hidden_size=hidden_size, pooling=pooling, window=window)
        self.layers = nn.ModuleList()
        for number in range(check_whole_number("layers", layers)):
            inputs = width if number else features
            self.layers.append(nn.ModuleList(layer(inputs, hidden_size) for _ in range(directions)))
        self.dropout = Dropout(dropout)
        self._truncate = None if truncate is None else check_whole_number("truncate", truncate, or_else="null")

    def outputs(self, steps: Tensor, present: Tensor) -> Tensor:
        """See `StepFeatures.outputs`."""
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleList)
            if number:
                steps = self.dropout(steps)
            made = [self._read(layer[0], steps)]
            for other in layer[1:]:
                made.append(functional.backwards(self._read(other, functional.backwards(steps, present)), present))
            steps = torch.cat(made, dim=-1)
        return steps

    def last(self, outputs: Tensor, present: Tensor) -> Tensor:
        """See `StepFeatures.last`; of the direction from the end, which ends there, the first step."""
        forth, *back = outputs.chunk(len(self.layers[0]), dim=-1)  # type: ignore[arg-type]
        return torch.cat([super().last(forth, present), *(each[:, 0] for each in back)], dim=-1)

    def _read(self, layer: nn.Module, steps: Tensor) -> Tensor:
        """Outputs of a layer; the state goes from one stretch of steps to the next, and no gradient through it."""
        outputs, state = [], None
        for stretch in steps.split(self._truncate or max(steps.shape[1], 1), dim=1):
            made, state = layer(stretch, state)
            state = tree_map(Tensor.detach, state)
            outputs.append(made)
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


class RecurrentEncoder(SequenceEncoder):
    """Recurrent layers, an attention window, pooling, then Linear to D.

    Args:
        layer: makes a recurrent layer of the numbers of its inputs and outputs.
        hidden_size: of the state of each layer.
        layers: one on top of the other.
        bidirectional: each layer a second time from the end, with weights of its own, beside the first.
        pooling: see `StepFeatures`; ``last`` is where each direction ends.
        window: see `StepFeatures`.
        truncate: k, after so many steps of a direction the state is taken as given: no gradient goes farther back; None
            for no limit.
        others: see `SequenceEncoder`; ``dropout`` is between layers too.

    Raises:
        ValueError: for a value out of range, or objects that are no sequences.
    """

    def __init__(
        self,
        layer: Callable[[int, int], RecurrentLayer],
        *,
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        pooling: str,
        window: int,
        truncate: int | None,
        **others: Unpack[StepOptions],
    ) -> None:
        features = partial(
            Recurrent,
            layer=layer,
            hidden_size=hidden_size,
            layers=layers,
            bidirectional=bidirectional,
            pooling=pooling,
            window=window,
            truncate=truncate,
            dropout=others.get("dropout", 0.0),
        )
        super().__init__(features, **others)


class Elman(RecurrentEncoder):
    """Elman's network, ``h' = s(W x + U h + b)``; see `memlab.functional.elman`.

    Args:
        nonlinearity: s, ``tanh`` or ``relu``.
        options: see `RecurrentEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, nonlinearity: str, **options: Unpack[RecurrentOptions]) -> None:
        super().__init__(partial(elman_layer, nonlinearity=nonlinearity), **options)


class Jordan(RecurrentEncoder):
    """Jordan's network, which is fed its outputs; see `memlab.functional.jordan`.

    Args:
        nonlinearity: s, ``tanh`` or ``relu``.
        options: see `RecurrentEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, nonlinearity: str, **options: Unpack[RecurrentOptions]) -> None:
        super().__init__(partial(JordanLayer, nonlinearity=nonlinearity), **options)


class LSTM(RecurrentEncoder):
    """An LSTM; see `memlab.functional.lstm`.

    Args:
        options: see `RecurrentEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, **options: Unpack[RecurrentOptions]) -> None:
        super().__init__(lstm_layer, **options)


class PeepholeLSTM(RecurrentEncoder):
    """An LSTM whose gates see the cell; see `memlab.functional.peephole`.

    Args:
        options: see `RecurrentEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, **options: Unpack[RecurrentOptions]) -> None:
        super().__init__(PeepholeLayer, **options)


class GRU(RecurrentEncoder):
    """A GRU; see `memlab.functional.gru` and `memlab.functional.cudnn_gru`.

    Args:
        variant: ``original``, the reset before the matrix, or ``cudnn``, behind it, which is fused.
        options: see `RecurrentEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, variant: str, **options: Unpack[RecurrentOptions]) -> None:
        super().__init__(partial(gru_layer, variant=variant), **options)
