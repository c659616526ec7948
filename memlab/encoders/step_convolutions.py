"""Convolutions over the steps of sequences, layer on layer (Wang, Yan and Oates 2017, "FCN")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from memlab.checks import check_whole_number
from memlab.encoders.dropout import Dropout
from memlab.encoders.sequences import SequenceEncoder, StepFeatures, StepOptions
from memlab.encoders.texts import TokenVectors


class FCN(SequenceEncoder):
    """Convolutions over the steps, an attention window, pooling, then Linear to D.

    ``h_t = relu(N(sum_{i=-r}^{r} W_i h_{t+i} + b))`` of each layer, 2 r + 1 being its width, with zeros before the
    first step and behind the last. N is over all numbers of a sequence, where the paper has batch normalisation (see
    `SequenceNorm`): an embedding depends on its own sequence alone.

    Args:
        filters: numbers of a step that each layer makes.
        widths: steps that each layer sees, odd.
        pooling: see `StepFeatures`; ``mean`` in the paper.
        window: see `StepFeatures`.
        others: see `SequenceEncoder`; ``dropout`` is between layers too.

    Raises:
        ValueError: for a value out of range, or objects that are no sequences.
    """

    def __init__(
        self,
        *,
        filters: Sequence[int],
        widths: Sequence[int],
        pooling: str,
        window: int,
        **others: Unpack[StepOptions],
    ) -> None:
        if not filters or len(filters) != len(widths):
            raise ValueError(
                f"widths={list(widths)}: must be as many as filters={list(filters)}, one or more, of a layer each"
            )
        for count, width in zip(filters, widths, strict=True):
            check_whole_number("filters", count)
            if check_whole_number("widths", width) % 2 == 0:
                raise ValueError(f"widths={list(widths)}: must be odd, as many steps before one as behind it")
        features = partial(
            _Convolving,
            filters=filters,
            widths=widths,
            pooling=pooling,
            window=window,
            dropout=others.get("dropout", 0.0),
        )
        super().__init__(features, **others)


class SequenceNorm(nn.Module):
    """``g (h - m) / s + b``, m and s being the mean and deviation of all numbers of the steps that a sequence has.

    GroupNorm of one group (Wu and He 2018), which knows where a sequence ends.

    Args:
        width: numbers of a step, with g and b for each.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = 1e-5

    def forward(self, steps: Tensor, present: Tensor) -> Tensor:
        """(B, T, H) of (B, T, H), 0 behind the end of each; ``present`` is (B, T)."""
        behind = ~present[..., None]
        count = steps.shape[2] * present.sum(1)[:, None, None]
        centred = steps - steps.masked_fill(behind, 0).sum((1, 2), keepdim=True) / count
        centred = centred.masked_fill(behind, 0)
        variance = centred.square().sum((1, 2), keepdim=True) / count
        return (centred * (variance + self.eps).rsqrt() * self.weight + self.bias).masked_fill(behind, 0)


class _Convolving(StepFeatures):
    def __init__(
        self,
        vectors: TokenVectors | None,
        features: int,
        *,
        filters: Sequence[int],
        widths: Sequence[int],
        pooling: str,
        window: int,
        dropout: float,
    ) -> None:
        super().__init__(vectors, width=filters[-1], hidden_size=filters[-1], pooling=pooling, window=window)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for inputs, count, width in zip([features, *filters], filters, widths, strict=False):
            self.convolutions.append(nn.Conv1d(inputs, count, width, padding="same"))
            self.norms.append(SequenceNorm(count))
        self.dropout = Dropout(dropout)

    def outputs(self, steps: Tensor, present: Tensor) -> Tensor:
        """See `StepFeatures.outputs`."""
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if number:
                steps = self.dropout(steps)
            steps = norm(convolution(steps.mT).mT, present).relu()
        return steps
