"""Reading in two passes as one node of the autograd graph: nothing of size (B, M) is held (section 4.2, eqs. 15-17).

Pass 1, the forward, goes over the parts of a support without graph and keeps the running maximum and sum of each
class. Pass 2, the backward, makes the scores of each part again and sends ``exp(z - max) / Z`` back through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memlab import functional
from memlab.replay import AutocastState, RandomState


def read_encoded_again(
    score: Callable[[Tensor, slice], Tensor],
    *,
    parts: Sequence[slice],
    kept: int,
    again: Callable[[], AbstractContextManager[None]],
    labels: Tensor,
    num_classes: int,
    query: Tensor,
    parameters: Sequence[Tensor],
) -> functional.ClassRead:
    """Read a support whose keys are made when they are needed, once in each pass.

    Both passes see the same random numbers and the same autocast.

    Args:
        score: (B, m) scores of a part, from the queries and the part; differentiable in queries and parameters.
        parts: disjoint slices that make up the support.
        kept: how many of the last parts keep their graph from pass 1 and are not scored again.
        again: entered while parts are scored for the second time.
        labels: (M,) class ids of the support.
        num_classes: C.
        query: (B, D) encoded queries.
        parameters: all else that a gradient is wanted for.

    Returns:
        what the queries have read; see `memlab.functional.ClassRead`.
    """
    found = _ReadEncodedAgain.apply(score, parts, kept, again, labels, num_classes, query, *parameters)
    return functional.ClassRead(*found)


@dataclass(frozen=True)
class Tiles:
    """Keys that are at hand, to be read tile by tile.

    Args:
        parts: disjoint slices that make up the keys.
        key_terms: (m, D') from (m, D) keys; see `memlab.similarity.Similarity`.
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


class _ReadEncodedAgain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        score: Callable[[Tensor, slice], Tensor],
        parts: Sequence[slice],
        kept: int,
        again: Callable[[], AbstractContextManager[None]],
        labels: Tensor,
        num_classes: int,
        query: Tensor,
        *parameters: Tensor,
    ) -> functional.ClassRead:
        ctx.score, ctx.parts, ctx.again, ctx.labels = score, parts, again, labels
        ctx.random_state = RandomState(query.device)
        ctx.autocast = AutocastState(query.device)
        first_kept = len(parts) - kept
        ctx.scored_again, ctx.kept = parts[:first_kept], []
        sums: functional.ClassSums | None = None
        for number, part in enumerate(parts):
            keep = number >= first_kept
            with torch.inference_mode(not keep), torch.set_grad_enabled(keep), ctx.autocast.again():
                reader = query.detach().requires_grad_(keep)
                scores = score(reader, part)
            if keep:
                ctx.kept.append((part, reader, scores))
            chunk = functional.class_sums(scores.detach(), labels[part], num_classes)
            del scores
            sums = chunk if sums is None else functional.merge_class_sums(sums, chunk)
        assert sums is not None, "a support has at least one object"
        read = functional.read_of_sums(sums)
        ctx.save_for_backward(read.class_scores, query, *parameters)
        ctx.mark_non_differentiable(read.lowest)
        return read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        class_scores, query, *parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * (1 + len(parameters))
        for part, reader, scores in _ReadEncodedAgain.graphs(ctx, query):
            of_scores = functional.class_scores_gradient(scores.detach(), ctx.labels[part], class_scores, gradient)
            found = torch.autograd.grad(scores, [reader, *parameters], of_scores, allow_unused=True)
            totals = [_sum(total, more) for total, more in zip(totals, found, strict=True)]
            del reader, scores, of_scores, found
        return None, None, None, None, None, None, *totals

    @staticmethod
    def graphs(ctx: Any, query: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """One part after the other with its queries and scores, with graph: kept from pass 1, or scored again.

        A kept graph serves once; a second backward scores all parts again.
        """
        parts = ctx.scored_again
        if ctx.kept:
            ctx.scored_again = ctx.parts
        while ctx.kept:
            yield ctx.kept.pop(0)
        with ctx.random_state.again(), ctx.again():
            for part in parts:
                with torch.enable_grad(), ctx.autocast.again():
                    reader = query.detach().requires_grad_()
                    scores = ctx.score(reader, part)
                yield part, reader, scores
                del reader, scores


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


def _sum(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Add in place; None stands for zero. Autograd may give two parameters one tensor as gradient, hence the copy."""
    if total is None or more is None:
        return total if more is None else more.clone()
    return total.add_(more)
