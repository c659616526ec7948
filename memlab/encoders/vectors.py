"""Encoders of any object, which they take as one vector of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

from torch import nn

from memlab.checks import check_number, check_whole_number
from memlab.encoders.dropout import Dropout
from memlab.encoders.projection import Projected, Projection, numbers_in


class Linear(Projected):
    """``u = A x`` (eqs. 11-12); no bias, as there.

    Args:
        input_shape: shape of one object; flattened.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of the inputs); see `Projected`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        **projection: Unpack[Projection],
    ) -> None:
        super().__init__(
            nn.Flatten(),
            width=numbers_in(input_shape),
            **projection,
            bias=False,
        )


class MLP(Projected):
    """Linear -> LayerNorm -> ReLU -> Dropout for every hidden size, then Linear to D.

    Args:
        input_shape: shape of one object; flattened.
        hidden_sizes: width of each hidden layer, first to last; with none the projection is of the inputs.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of every hidden layer); see `Projected`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        hidden_sizes: Sequence[int],
        **projection: Unpack[Projection],
    ) -> None:
        dropout = check_number("dropout", projection.get("dropout", 0.0), at_least=0, below=1)
        widths = [numbers_in(input_shape), *(check_whole_number("hidden_sizes", size) for size in hidden_sizes)]
        layers: list[nn.Module] = []
        for number, (width, size) in enumerate(pairwise(widths)):
            between = [Dropout(dropout)] if number else []
            layers += [*between, nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU()]
        super().__init__(
            nn.Sequential(nn.Flatten(), *layers),
            width=widths[-1],
            **projection,
        )
