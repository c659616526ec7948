"""Reading in two passes as one node of the autograd graph: nothing of size (B, M) is held (section 4.2, eqs. 15-17).

Pass 1, the forward, goes over the parts of a support without graph and keeps the running maximum and sum of each
class. Pass 2, the backward, makes the scores of each part again and sends ``exp(z - max) / Z`` back through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from memlab import functional
from memlab.memory.batch_norm import running_statistics_restored
from memlab.memory.classes import Classes
from memlab.memory.replay import AutocastState, RandomState
from memlab.memory.scored_support import ScoredSupport


def read_in_two_passes(
    query: Tensor, scored: ScoredSupport, *, classes: Classes, parts: Sequence[slice], kept: int
) -> functional.ClassRead:
    """Read a support whose keys are made when they are needed, once in each pass.

    Both passes see the same random numbers and the same autocast; running statistics change in the first alone.

    Args:
        query: (B, D) encoded queries.
        scored: the support.
        classes: of its objects.
        parts: disjoint slices that make it up.
        kept: how many of the last parts keep their graph from pass 1 and are not scored again.

    Returns:
        what the queries have read; see `memlab.functional.ClassRead`.
    """
    return functional.ClassRead(*_ReadInTwoPasses.apply(scored, classes, parts, kept, query, *scored.parameters))


class _ReadInTwoPasses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scored: ScoredSupport,
        classes: Classes,
        parts: Sequence[slice],
        kept: int,
        query: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.scored, ctx.classes, ctx.parts = scored, classes, parts
        ctx.bounded = functional.are_bounded(scored.similarity.bound)
        ctx.random_state = RandomState(query.device)
        ctx.autocast = AutocastState(query.device)
        first_kept = len(parts) - kept
        ctx.scored_again, ctx.kept = parts[:first_kept], []
        sums: functional.ClassSums | None = None
        for number, part in enumerate(parts):
            keep = number >= first_kept
            with torch.inference_mode(not keep), torch.set_grad_enabled(keep), ctx.autocast.again():
                reader = query.detach().requires_grad_(keep)
                scores = scored.scores(reader, part)
            if keep:
                ctx.kept.append((part, reader, scores))
            if sums is None:
                sums = functional.ClassSums(classes.number, like=scores.detach(), bounded=ctx.bounded)
            sums.add(scores.detach(), classes.labels[part])
            del scores
        assert sums is not None, "a support has at least one object"
        class_scores = sums.class_scores()
        ctx.save_for_backward(class_scores, query, *parameters)
        ctx.mark_non_differentiable(sums.lowest)
        return class_scores, sums.lowest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        class_scores, query, *parameters = ctx.saved_tensors
        gradient = gradient.mT.contiguous().mT  # support-major, as scores are
        labels = ctx.classes.labels
        totals: list[Tensor | None] = [None] * (1 + len(parameters))
        for part, reader, scores in _ReadInTwoPasses.graphs(ctx, query):
            of_scores = functional.class_scores_gradient(
                scores.detach(), labels[part], class_scores, gradient, bounded=ctx.bounded
            )
            found = torch.autograd.grad(scores, [reader, *parameters], of_scores, allow_unused=True)
            totals = [added(total, more) for total, more in zip(totals, found, strict=True)]
            del reader, scores, of_scores, found
        return None, None, None, None, *totals

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
        with ctx.random_state.again(), running_statistics_restored(ctx.scored.encoder):
            for part in parts:
                with torch.enable_grad(), ctx.autocast.again():
                    reader = query.detach().requires_grad_()
                    scores = ctx.scored.scores(reader, part)
                yield part, reader, scores
                del reader, scores


def added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Add in place; None stands for zero. Autograd may give two parameters one tensor as gradient, hence the copy."""
    if total is None or more is None:
        return total if more is None else more.clone()
    return total.add_(more)
