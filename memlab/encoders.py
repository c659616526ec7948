"""Encoders ``f: x -> u``, one for queries and support objects alike (eqs. 11, 12 and 14).

Every encoder takes the shape of one object, so that data and encoder are chosen apart, and gives embeddings (B, D).
None looks across the batch: an object's embedding does not depend on what it is encoded with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memlab.argument_checks import check_number, check_whole_number


class Identity(nn.Module):
    """``u = x``, flattened: the memory reads raw features, and only the scale of the similarity can be learned.

    Args:
        input_shape: shape of one object.
    """

    def __init__(self, *, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.embedding_size = math.prod(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) to (B, D)."""
        return x.flatten(1)


class Linear(nn.Module):
    """``u = A x`` (eqs. 11-12); no bias, as there.

    Args:
        input_shape: shape of one object; flattened.
        embedding_size: D, the rows of A.

    Raises:
        ValueError: for an embedding size that is not a whole number of at least 1.
    """

    def __init__(self, *, input_shape: Sequence[int], embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = check_whole_number("embedding_size", embedding_size)
        self.projection = nn.Linear(math.prod(input_shape), embedding_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) to (B, D)."""
        projected: Tensor = self.projection(x.flatten(1))
        return projected


class MLP(nn.Module):
    """Linear -> LayerNorm -> ReLU -> Dropout for every hidden size, then Linear to D.

    Args:
        input_shape: shape of one object; flattened.
        embedding_size: D.
        hidden_sizes: width of each hidden layer, first to last.
        dropout: share of hidden units dropped in training, from 0 up to 1.

    Raises:
        ValueError: for a size that is not a whole number of at least 1, or a dropout out of range.
    """

    def __init__(
        self, *, input_shape: Sequence[int], embedding_size: int, hidden_sizes: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding_size = check_whole_number("embedding_size", embedding_size)
        check_number("dropout", dropout, at_least=0, below=1)
        layers: list[nn.Module] = []
        width = math.prod(input_shape)
        for size in hidden_sizes:
            check_whole_number("hidden_sizes", size)
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, embedding_size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) to (B, D)."""
        embedded: Tensor = self.layers(x)
        return embedded


class Conv(nn.Module):
    """Conv -> MaxPool -> ReLU -> Linear (eq. 14).

    Args:
        input_shape: (channels, height, width) of one image.
        embedding_size: D.
        channels: filters of the convolution.
        kernel_size: side of a filter in pixels; no padding.
        pool_size: side and stride of the pooling window in pixels.

    Raises:
        ValueError: for objects that are not images, sizes below 1, or a filter or window larger than the image.
    """

    def __init__(
        self, *, input_shape: Sequence[int], embedding_size: int, channels: int, kernel_size: int, pool_size: int
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"input_shape={tuple(input_shape)}: must be (channels, height, width); use linear or mlp")
        self.embedding_size = check_whole_number("embedding_size", embedding_size)
        check_whole_number("channels", channels)
        side = min(input_shape[1:])
        if check_whole_number("kernel_size", kernel_size) > side:
            raise ValueError(f"kernel_size={kernel_size}: must be at most {side}, the side of the image")
        filtered = side - kernel_size + 1
        if check_whole_number("pool_size", pool_size) > filtered:
            raise ValueError(f"pool_size={pool_size}: must be at most {filtered}, the side after the convolution")
        # Channels last halves the time of a step on a CPU and suits tensor cores; values differ by rounding alone.
        self.conv = nn.Conv2d(input_shape[0], channels, kernel_size).to(memory_format=torch.channels_last)
        self.pool = nn.MaxPool2d(pool_size)
        height, width = ((size - kernel_size + 1) // pool_size for size in input_shape[1:])
        self.projection = nn.Linear(channels * height * width, embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, D)."""
        features = torch.relu(self.pool(self.conv(x.contiguous(memory_format=torch.channels_last))))
        embedded: Tensor = self.projection(features.flatten(1))
        return embedded
