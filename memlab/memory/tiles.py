"""Reading keys that are at hand as one node of the autograd graph, tile by tile: nothing of size (B, M) is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memlab import functional
from memlab.functional import ValueRead, Values, ValueSums
from memlab.memory.strongest import Blocks


@dataclass(frozen=True)
class Tiles:
    """Keys that are at hand, to be read tile by tile.

    Args:
        parts: disjoint slices that make up the keys.
        labels: (M,) class ids of the keys.
        num_classes: C.
        ids: (M,) which object each key is.
        exclude: (B,) id of the object that each query must not read, or None to read all.
        bounded: whether `memlab.functional.are_bounded` holds of the scores.
        is_root: see `memlab.memory.similarity.Similarity.is_root`.
        ends: (C,) where the keys of each class end if they are sorted by class, or None.
    """

    parts: Sequence[slice]
    labels: Tensor
    num_classes: int
    ids: Tensor
    exclude: Tensor | None
    bounded: bool
    is_root: bool
    ends: Tensor | None = None

    def counts(self, part: slice) -> Tensor | None:
        """(C,) how many keys of a part are in each class, if they are sorted by class."""
        if self.ends is None:
            return None
        return torch.cat([self.ends.new_zeros(1), self.ends]).clamp(part.start, part.stop).diff()

    def scored(self, query_terms: Tensor, key_terms: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Of each tile its place, (B, m) scores in bits, and (m, B) memory to work in.

        In bits, because powers of 2 cost one pass over the scores less than powers of e.
        All tiles use the same memory. Taken anew for each it is given back to the system and faulted in again, which
        would take longer than all else.
        """
        bits = functional.LOG2_E**2 if self.is_root else functional.LOG2_E
        columns = (query_terms * bits).mT.contiguous()
        longest = max((part.stop - part.start for part in self.parts), default=0)
        room = columns.new_empty(2, longest, columns.shape[1])
        for part in self.parts:
            terms = key_terms[part]
            scores, spare = room[:, : len(terms)]
            torch.mm(terms, columns, out=scores)
            if self.is_root:
                functional.root_scores_(scores)
            if self.exclude is not None:
                scores.masked_fill_(self.ids[part][:, None] == self.exclude, -torch.inf)
            yield part, scores.mT, spare

    def slopes(self, scores: Tensor) -> Tensor | None:
        """Of (B, m) scores in bits the slopes in nats by the products that they are roots of; None if they are none."""
        return functional.root_slopes(scores, unit=functional.LOG2_E) if self.is_root else None


def read_tiles(query_terms: Tensor, key_terms: Tensor, tiles: Tiles) -> functional.ClassRead:
    """Read keys that are at hand, tile by tile; differentiable in the terms of queries and keys.

    Args:
        query_terms: (B, D') what key terms are multiplied with; see `memlab.memory.similarity.Similarity`.
        key_terms: (M, D') of the same type.
        tiles: all else about the keys.

    Returns:
        what the queries have read; see `memlab.functional.ClassRead`.
    """
    return functional.ClassRead(*_ReadTiles.apply(query_terms, key_terms, tiles))


def read_with_blocks(query_terms: Tensor, key_terms: Tensor, tiles: Tiles) -> tuple[functional.ClassRead, Blocks]:
    """As `read_tiles`, without gradient; and in the same pass, where the strongest keys lie."""
    blocks = Blocks()
    with torch.no_grad():
        in_bits, lowest = _sum(query_terms, key_terms, tiles, blocks)
    return functional.ClassRead(in_bits / functional.LOG2_E, lowest), blocks


def _sum(query_terms: Tensor, key_terms: Tensor, tiles: Tiles, blocks: Blocks | None = None) -> tuple[Tensor, Tensor]:
    """(B, C) class scores in bits and (B,) lowest scores in nats."""
    sums = functional.ClassSums(tiles.num_classes, like=query_terms, base=2, bounded=tiles.bounded)
    for part, scores, spare in tiles.scored(query_terms, key_terms):
        if blocks is not None:
            blocks.take(part.start, scores)
        of_use = len(query_terms) == 1 or query_terms.device.type == "cuda"
        counts = tiles.counts(part) if of_use else None
        sums.add(scores, tiles.labels[part], spare=spare, counts=counts)
    return sums.class_scores(), sums.lowest / functional.LOG2_E


class _ReadTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_terms: Tensor, key_terms: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
        in_bits, lowest = _sum(query_terms, key_terms, tiles)
        ctx.tiles = tiles
        ctx.save_for_backward(in_bits, query_terms, key_terms)
        ctx.mark_non_differentiable(lowest)
        return in_bits / functional.LOG2_E, lowest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        in_bits, query_terms, key_terms = ctx.saved_tensors
        gradient = gradient.mT.contiguous().mT  # support-major, as scores are
        tiles: Tiles = ctx.tiles
        of_query = torch.zeros_like(query_terms)
        of_keys = torch.empty_like(key_terms) if ctx.needs_input_grad[1] else None
        with torch.autocast(query_terms.device.type, enabled=False):
            for part, scores, spare in tiles.scored(query_terms, key_terms):
                labels, slopes = tiles.labels[part], tiles.slopes(scores)
                of_scores = functional.class_scores_gradient(
                    scores, labels, in_bits, gradient, base=2, bounded=tiles.bounded, spare=spare
                )
                if slopes is not None:
                    of_scores.mul_(slopes)
                of_query.addmm_(of_scores, key_terms[part])
                if of_keys is not None:
                    torch.mm(of_scores.mT, query_terms, out=of_keys[part])
        return of_query, of_keys, None


def read_value_tiles(
    query_terms: Tensor, key_terms: Tensor, tiles: Tiles, values: Values, origins: Tensor | None = None
) -> ValueRead:
    """Read values of keys that are at hand, tile by tile; differentiable in all.

    Args:
        query_terms: (B, D') what key terms are multiplied with.
        key_terms: (M, D') of the same type.
        tiles: all else about the keys.
        values: (M, D) and (M, H) of the same type; see `memlab.functional.value_read`.
        origins: (B, H) for values with places.
    """
    return ValueRead(*_ReadValueTiles.apply(query_terms, key_terms, *values, origins, tiles))


class _ReadValueTiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_terms: Tensor,
        key_terms: Tensor,
        shared: Tensor,
        places: Tensor | None,
        origins: Tensor | None,
        tiles: Tiles,
    ) -> tuple[Tensor | None, ...]:
        values = Values(shared, places)
        sums = ValueSums(values, queries=len(query_terms), base=2)
        with torch.autocast(query_terms.device.type, enabled=False):
            for part, scores, spare in tiles.scored(query_terms, key_terms):
                sums.add(scores, values.of(part), origins, spare=spare)
        read = sums.read()
        ctx.tiles = tiles
        ctx.save_for_backward(query_terms, key_terms, shared, places, origins, *read)
        return tuple(read)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query_terms, key_terms, shared, places, origins, *read = ctx.saved_tensors
        values = Values(shared, places)
        of_query, of_keys, of_values = (torch.zeros_like(each) for each in (query_terms, key_terms, shared))
        of_places = None if places is None else torch.zeros_like(places)
        of_origins = None if origins is None else torch.zeros_like(origins)
        with torch.autocast(query_terms.device.type, enabled=False):
            for part, scores, spare in ctx.tiles.scored(query_terms, key_terms):
                slopes = ctx.tiles.slopes(scores)
                found = functional.value_read_gradient(
                    scores, values.of(part), origins, ValueRead(*read), *gradients, base=2, spare=spare
                )
                if slopes is not None:
                    found.scores.mul_(slopes)
                of_query.addmm_(found.scores, key_terms[part])
                torch.mm(found.scores.mT, query_terms, out=of_keys[part])
                of_values[part] = found.shared
                if found.places is not None and found.origins is not None:
                    assert of_places is not None
                    assert of_origins is not None
                    of_places[part] = found.places
                    of_origins += found.origins
        return of_query, of_keys, of_values, of_places, of_origins, None
