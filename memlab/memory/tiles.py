"""Reading keys that are at hand as one node of the autograd graph, tile by tile: nothing of size (B, M) is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memlab import functional


@dataclass(frozen=True)
class Tiles:
    """Keys that are at hand, to be read tile by tile.

    Args:
        parts: disjoint slices that make up the keys.
        key_terms: (m, D') from (m, D) keys; see `memlab.memory.similarity.Similarity`.
        labels: (M,) class ids of the keys.
        num_classes: C.
        ids: (M,) which object each key is.
        exclude: (B,) id of the object that each query must not read, or None to read all.
    """

    parts: Sequence[slice]
    key_terms: Callable[[Tensor], Tensor]
    labels: Tensor
    num_classes: int
    ids: Tensor
    exclude: Tensor | None

    def scored(self, query_terms: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Of each tile its place, (m, D') key terms, (B, m) scores, and (m, B) memory to work in.

        All tiles use the same memory. Taken anew for each it is given back to the system and faulted in again, which
        would take longer than all else.
        """
        columns = query_terms.mT.contiguous()
        longest = max(part.stop - part.start for part in self.parts)
        room = columns.new_empty(2, longest, columns.shape[1])
        for part in self.parts:
            terms = self.key_terms(keys[part]).to(columns.dtype)
            scores, spare = room[:, : len(terms)]
            torch.mm(terms, columns, out=scores)
            if self.exclude is not None:
                scores.masked_fill_(self.ids[part][:, None] == self.exclude, -torch.inf)
            yield part, terms, scores.mT, spare


def read_tiles(query_terms: Tensor, keys: Tensor, tiles: Tiles) -> functional.ClassRead:
    """Read keys that are at hand, tile by tile; differentiable in query terms and keys.

    Args:
        query_terms: (B, D') what key terms are multiplied with, of a type at least as wide.
        keys: (M, D) encoded support objects.
        tiles: all else about the keys.

    Returns:
        what the queries have read; see `memlab.functional.ClassRead`.
    """
    return functional.ClassRead(*_ReadTiles.apply(query_terms, keys, tiles))


class _ReadTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_terms: Tensor, keys: Tensor, tiles: Tiles) -> functional.ClassRead:
        sums: functional.ClassSums | None = None
        for part, _, scores, spare in tiles.scored(query_terms, keys):
            tile = functional.class_sums(scores, tiles.labels[part], tiles.num_classes, spare=spare)
            sums = tile if sums is None else functional.merge_class_sums(sums, tile)
        assert sums is not None, "a memory has at least one object"
        read = functional.read_of_sums(sums)
        ctx.tiles = tiles
        ctx.save_for_backward(read.class_scores, query_terms, keys)
        ctx.mark_non_differentiable(read.lowest)
        return read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        class_scores, query_terms, keys = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        of_query = torch.zeros_like(query_terms)
        of_keys = torch.empty_like(keys) if ctx.needs_input_grad[1] else None
        with torch.autocast(query_terms.device.type, enabled=False):
            for part, terms, scores, spare in tiles.scored(query_terms, keys):
                labels = tiles.labels[part]
                of_scores = functional.class_scores_gradient(scores, labels, class_scores, gradient, spare=spare)
                of_query.addmm_(of_scores, terms)
                if of_keys is not None:
                    of_keys[part] = _through(tiles.key_terms, keys[part], of_scores.mT @ query_terms)
        return of_query, of_keys, None


def _through(function: Callable[[Tensor], Tensor], point: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a function's argument from that of its result."""
    with torch.enable_grad():
        argument = point.detach().requires_grad_()
        result = function(argument)
    if result is argument:
        return gradient
    (found,) = torch.autograd.grad(result, argument, gradient.to(result.dtype))
    return found
