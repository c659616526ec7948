"""A transformer over the steps of sequences: each step attends to all that there are (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from memlab.checks import check_whole_number
from memlab.encoders.dropout import Dropout
from memlab.encoders.sequences import SequenceEncoder, StepFeatures, StepOptions
from memlab.encoders.texts import TokenVectors

FASTEST, SLOWEST = 1.0, 1e-4
"""Radians a step of the waves that tell places."""


class Transformer(SequenceEncoder):
    """Layers of attention over the steps, an attention window, pooling, then Linear to D.

    ``h_t = W x_t + b + p_t``, p of sines and cosines (see `places`), then of each layer, with N a LayerNorm,
    ``h = h + attention(N(h))`` and ``h = h + B gelu(A N(h))``, A making four times as many numbers, and N of the last.
    Torch's own layers, with N before and not behind what is added (Xiong et al. 2020), so that no warm-up is needed.

    Args:
        hidden_size: of h.
        layers: one on top of the other.
        heads: of each attention, which share out h.
        pooling: see `StepFeatures`.
        window: see `StepFeatures`.
        others: see `SequenceEncoder`; ``dropout`` is that of what each layer adds, and within it, too.

    Raises:
        ValueError: for a value out of range, heads that do not share out ``hidden_size``, or objects that are no
            sequences.
    """

    def __init__(
        self, *, hidden_size: int, layers: int, heads: int, pooling: str, window: int, **others: Unpack[StepOptions]
    ) -> None:
        features = partial(
            _Attending,
            hidden_size=hidden_size,
            layers=layers,
            heads=heads,
            pooling=pooling,
            window=window,
            dropout=others.get("dropout", 0.0),
        )
        super().__init__(features, **others)


class _Attending(StepFeatures):
    def __init__(
        self,
        vectors: TokenVectors | None,
        features: int,
        *,
        hidden_size: int,
        layers: int,
        heads: int,
        pooling: str,
        window: int,
        dropout: float,
    ) -> None:
        check_whole_number("hidden_size", hidden_size)
        check_whole_number("layers", layers)
        if hidden_size % check_whole_number("heads", heads):
            raise ValueError(f"heads={heads}: must divide hidden_size={hidden_size}, of which each has its part")
        super().__init__(vectors, width=hidden_size, hidden_size=hidden_size, pooling=pooling, window=window)
        self.inputs = nn.Linear(features, hidden_size)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(_layer(hidden_size, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)

    def outputs(self, steps: Tensor, present: Tensor) -> Tensor:
        """See `StepFeatures.outputs`."""
        driven = self.inputs(steps)
        h = self.dropout(driven + places(*driven.shape[1:], like=driven))
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=~present)
        outputs: Tensor = self.norm(h)
        return outputs


def places(count: int, size: int, *, like: Tensor) -> Tensor:
    """(count, size) ``p_t``: half of it ``sin(w_i t)``, half ``cos(w_i t)``, with w from 1 down to 1/10,000.

    >>> places(2, 4, like=torch.zeros(()))
    tensor([[0.0000e+00, 0.0000e+00, 1.0000e+00, 1.0000e+00],
            [8.4147e-01, 1.0000e-04, 5.4030e-01, 1.0000e+00]])
    """
    half = -(-size // 2)
    ends = math.log(FASTEST), math.log(SLOWEST)
    speed = torch.linspace(*ends, half, dtype=torch.float64, device=like.device).exp()
    turned = torch.arange(count, dtype=torch.float64, device=like.device)[:, None] * speed
    return torch.cat([turned.sin(), turned.cos()], dim=1)[:, :size].to(like.dtype)


def _layer(size: int, heads: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Torch's, with dropout that an object meets alike whatever it is encoded with; none of attention weights."""
    layer = nn.TransformerEncoderLayer(
        size, heads, dim_feedforward=4 * size, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    for name in ("dropout", "dropout1", "dropout2"):
        setattr(layer, name, Dropout(dropout))
    return layer
