"""Encoders of sequences: recurrent layers over the steps, then one embedding of them all.

A sequence is (T, m), and those encoded together are as long as the longest of them, NaN behind the end of each. What is
behind its end changes nothing of the embedding of a sequence, nor of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Required, Unpack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memlab import functional
from memlab.checks import check_choice, check_number, check_switch, check_whole_number
from memlab.data.sequences import there
from memlab.encoders.dropout import Dropout
from memlab.encoders.projection import Projected, Projection
from memlab.encoders.recurrent_layers import (
    JordanLayer,
    PeepholeLayer,
    RecurrentLayer,
    elman_layer,
    gru_layer,
    lstm_layer,
)
from memlab.encoders.texts import TokenVectors, of_objects

POOLINGS = ("last", "mean", "max", "attention")


class SequenceOptions(Projection, total=False):
    """What every encoder of sequences takes besides its own; see `SequenceEncoder`."""

    input_shape: Required[Sequence[int | None]]
    hidden_size: Required[int]
    layers: Required[int]
    bidirectional: Required[bool]
    pooling: Required[str]
    window: Required[int]
    truncate: Required[int | None]
    words: int | None
    separator: int | None
    word_size: int
    word_dropout: float


class Recurrent(nn.Module):
    """Sequences (B, T, m) to features (B, width): layers, an attention window, pooling.

    Args:
        layer: makes a layer of the numbers of its inputs and outputs.
        features: m.
        hidden_size, layers, bidirectional, pooling, window, truncate: see `SequenceEncoder`.
        dropout: share of the numbers of each step dropped between layers.
        vectors: of tokens, which steps then are; None for steps of numbers.
    """

    def __init__(
        self,
        layer: Callable[[int, int], RecurrentLayer],
        features: int,
        *,
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        pooling: str,
        window: int,
        truncate: int | None,
        dropout: float,
        vectors: TokenVectors | None,
    ) -> None:
        super().__init__()
        self.vectors = vectors
        check_whole_number("hidden_size", hidden_size)
        directions = 2 if check_switch("bidirectional", bidirectional) else 1
        self.width = directions * hidden_size
        self.layers = nn.ModuleList()
        for number in range(check_whole_number("layers", layers)):
            inputs = self.width if number else features
            self.layers.append(nn.ModuleList(layer(inputs, hidden_size) for _ in range(directions)))
        self.dropout = Dropout(dropout)
        self._truncate = None if truncate is None else check_whole_number("truncate", truncate, or_else="null")
        self._pooling = check_choice("pooling", pooling, POOLINGS)
        if check_whole_number("window", window, minimum=0):
            self.window = nn.Parameter(torch.zeros(2 * window + 1))
        if pooling == "attention":
            self.score = nn.Sequential(nn.Linear(self.width, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1))

    def forward(self, sequences: Tensor) -> Tensor:
        """(B, T, m), NaN behind the end of each, to (B, width)."""
        present = there(sequences)
        steps = sequences.masked_fill(~present[..., None], 0) if self.vectors is None else self.vectors(sequences)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleList)
            if number:
                steps = self.dropout(steps)
            made = [self._read(layer[0], steps)]
            for other in layer[1:]:
                made.append(functional.backwards(self._read(other, functional.backwards(steps, present)), present))
            steps = torch.cat(made, dim=-1)
        if isinstance(weights := getattr(self, "window", None), nn.Parameter):
            steps = functional.window(steps, weights.softmax(0), present)
        return self._pooled(steps, present)

    def _read(self, layer: nn.Module, steps: Tensor) -> Tensor:
        """Outputs of a layer; the state goes from one stretch of steps to the next, and no gradient through it."""
        outputs, state = [], None
        for stretch in steps.split(self._truncate or max(steps.shape[1], 1), dim=1):
            made, state = layer(stretch, state)
            state = tree_map(Tensor.detach, state)
            outputs.append(made)
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _pooled(self, steps: Tensor, present: Tensor) -> Tensor:
        if self._pooling == "mean":
            return functional.pool_mean(steps, present)
        if self._pooling == "max":
            return functional.pool_max(steps, present)
        if self._pooling == "attention":
            return functional.pool_attention(steps, self.score(steps).squeeze(-1), present)
        forth, *back = steps.chunk(len(self.layers[0]), dim=-1)  # type: ignore[arg-type]
        return torch.cat([functional.pool_last(forth, present), *(each[:, 0] for each in back)], dim=-1)


class SequenceEncoder(Projected):
    """Recurrent layers, an attention window, pooling, then Linear to D.

    Args:
        layer: makes a recurrent layer of the numbers of its inputs and outputs.
        input_shape: (T, m), T being None where sequences have different lengths; sequences of any length are read.
        hidden_size: of the state of each layer.
        layers: one on top of the other.
        bidirectional: each layer a second time from the end, with weights of its own, beside the first.
        pooling: of the outputs of all steps: ``last`` (of a direction, where it ends), ``mean``, ``max``, or
            ``attention``, ``sum_t a_t h_t`` with ``a = softmax_t(v . tanh(A h_t + b))``.
        window: n of ``o_k = sum_{i=0}^{2n} a_i h_{k+i-n}`` with learned a, whose sum is 1, before pooling; 0 for none.
        truncate: k, after so many steps of a direction the state is taken as given: no gradient goes farther back; None
            for no limit.
        words: V, numbers that tokens of texts have; None for steps of numbers.
        separator: number of what is between the texts of a pair; None for single texts.
        word_size: of the vector of a token.
        word_dropout: share of the tokens that are not known at a training step.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (between layers too); see `Projected`.

    Raises:
        ValueError: for a value out of range, or objects that are no sequences.
    """

    reads_sequences = True
    """Whether it takes objects of different lengths, NaN behind the end of each."""

    def __init__(
        self,
        layer: Callable[[int, int], RecurrentLayer],
        *,
        input_shape: Sequence[int | None],
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        pooling: str,
        window: int,
        truncate: int | None,
        words: int | None = None,
        separator: int | None = None,
        word_size: int = 64,
        word_dropout: float = 0.0,
        **projection: Unpack[Projection],
    ) -> None:
        if len(input_shape) != 2 or input_shape[1] is None:
            raise ValueError(f"input_shape={tuple(input_shape)}: must be (steps, numbers of a step), sequences")
        vectors = None if words is None else TokenVectors(words, size=word_size, dropout=word_dropout)
        own = Recurrent(
            layer,
            input_shape[1] if vectors is None else word_size,
            hidden_size=hidden_size,
            layers=layers,
            bidirectional=bidirectional,
            pooling=pooling,
            window=window,
            truncate=truncate,
            dropout=check_number("dropout", projection.get("dropout", 0.0), at_least=0, below=1),
            vectors=vectors,
        )
        trunk, width = of_objects(own, own.width, separator)
        super().__init__(trunk, width=width, **projection)


class Elman(SequenceEncoder):
    """Elman's network, ``h' = s(W x + U h + b)``; see `memlab.functional.elman`.

    Args:
        nonlinearity: s, ``tanh`` or ``relu``.
        options: see `SequenceEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, nonlinearity: str, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(partial(elman_layer, nonlinearity=nonlinearity), **options)


class Jordan(SequenceEncoder):
    """Jordan's network, which is fed its outputs; see `memlab.functional.jordan`.

    Args:
        nonlinearity: s, ``tanh`` or ``relu``.
        options: see `SequenceEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, nonlinearity: str, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(partial(JordanLayer, nonlinearity=nonlinearity), **options)


class LSTM(SequenceEncoder):
    """An LSTM; see `memlab.functional.lstm`.

    Args:
        options: see `SequenceEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(lstm_layer, **options)


class PeepholeLSTM(SequenceEncoder):
    """An LSTM whose gates see the cell; see `memlab.functional.peephole`.

    Args:
        options: see `SequenceEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(PeepholeLayer, **options)


class GRU(SequenceEncoder):
    """A GRU; see `memlab.functional.gru` and `memlab.functional.cudnn_gru`.

    Args:
        variant: ``original``, the reset before the matrix, or ``cudnn``, behind it, which is fused.
        options: see `SequenceEncoder`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, variant: str, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(partial(gru_layer, variant=variant), **options)
