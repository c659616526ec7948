"""What ends every encoder: features become an embedding of the size asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Required, TypedDict

from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_choice, check_number, check_whole_number
from memlab.encoders.dropout import Dropout


class _UnitLength(nn.Module):
    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1)


class Projection(TypedDict, total=False):
    """What every encoder with a projection takes besides its own; see `Projected`."""

    embedding_size: Required[int]
    normalisation: str
    dropout: float


class Projected(nn.Module):
    """``u = normalise(A dropout(trunk(x)) + b)``; a subclass says what the trunk is.

    Args:
        trunk: of objects (B, *input_shape) to features (B, width).
        width: features of one object.
        embedding_size: D.
        normalisation: of the embedding: ``none``; ``layer``, a LayerNorm without bias; ``length``, every embedding has
            length 1.
        dropout: share of the features dropped in training, from 0 up to 1.
        bias: whether there is a b.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        width: int,
        embedding_size: int,
        normalisation: str = "none",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_whole_number("embedding_size", embedding_size)
        check_choice("normalisation", normalisation, ["none", "layer", "length"])
        self.trunk = trunk
        self.dropout = Dropout(check_number("dropout", dropout, at_least=0, below=1))
        self.projection = nn.Linear(width, embedding_size, bias=bias)
        self.normalise: nn.Module = nn.Identity()
        if normalisation == "layer":
            self.normalise = nn.LayerNorm(embedding_size, bias=False)  # no distance would feel it
        if normalisation == "length":
            self.normalise = _UnitLength()

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) to (B, D)."""
        embedded: Tensor = self.normalise(self.projection(self.dropout(self.trunk(x))))
        return embedded


def numbers_in(input_shape: Sequence[int | None]) -> int:
    """How many numbers an object has that is taken as one vector.

    Raises:
        ValueError: for sequences, which have different lengths.
    """
    if None in input_shape:
        raise ValueError(
            f"input_shape={tuple(input_shape)}: must be known, of objects that are all of one size; use fcn or another"
            " encoder of sequences"
        )
    return math.prod(size or 0 for size in input_shape)


def check_image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the channels, height and width of images.

    Raises:
        ValueError: for objects that are not images.
    """
    if len(input_shape) != 3:
        others = "fcn or another encoder of sequences" if None in input_shape else "linear or mlp"
        raise ValueError(f"input_shape={tuple(input_shape)}: must be (channels, height, width); use {others}")
    channels, height, width = input_shape
    return channels, height, width
