"""Sequences of like length encoded together: what lies behind the end of one costs as much as what lies before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memlab import draws
from memlab.data.sequences import there

GROWTH = 1.25
"""Lengths of a lot differ by so much at most, unless it would be too small."""
SMALLEST, SMALLEST_ON_GPU = 16, 512
"""Sequences of a lot: a step of fewer takes hardly less time."""


def by_length(features: Callable[[Tensor], Tensor], sequences: Tensor) -> Tensor:
    """(B, width) features of sequences (B, T, m), NaN behind the end of each, those of like length together.

    Each is beside others that are a quarter longer at most, or nearly. Random numbers are those that the objects have
    in one lot (`memlab.draws`).

    Args:
        features: of sequences, of which each has its own whatever the others are.
        sequences: as long as the longest.
    """
    if len(sequences) < 2:
        return features(sequences)
    lengths = there(sequences).sum(1)
    smallest = SMALLEST if sequences.device.type == "cpu" else SMALLEST_ON_GPU
    lots = lots_of(lengths.cpu(), smallest=smallest)
    if len(lots) <= 1:
        return features(sequences)
    lots = [lot.to(sequences.device) for lot in lots]
    made = draws.of_each(lots, lambda lot: features(sequences[lot, : int(lengths[lot[-1]])]))
    return torch.cat(made)[torch.cat(lots).argsort()]


def lots_of(lengths: Tensor, *, smallest: int) -> list[Tensor]:
    """Places of sequences by their length, in lots that differ by `GROWTH` at most, the longest of each last.

    Args:
        lengths: (B,) of all.
        smallest: sequences of a lot; one of fewer is joined to the next longer ones, and the last to those before.

    >>> [lot.tolist() for lot in lots_of(torch.tensor([9, 1, 8, 1, 2, 10]), smallest=2)]
    [[1, 3], [4, 2, 0, 5]]
    """
    lengths, order = lengths.sort(stable=True)
    kinds = lengths.double().log().div(torch.tensor(GROWTH).log()).ceil()
    lots: list[Tensor] = []
    start = 0
    for end in [*(kinds.diff().nonzero().flatten() + 1).tolist(), len(order)]:
        if end - start >= smallest or (end == len(order) and not lots):
            lots.append(order[start:end])
            start = end
    if start < len(order):
        lots[-1] = torch.cat([lots[-1], order[start:]])
    return lots
