"""The memory modes: one read of a support set, equal results, different cost.

A memory maps encoded queries and a support to class scores (B, C); their log_softmax is the log of the class mass
(eq. 13). Gradients reach the encoder through the queries and through the keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.argument_checks import check_whole_number
from memlab.similarity import Similarity
from memlab.support import Support


class FullMemory(nn.Module):
    """The definition: all M keys are encoded and read at once.

    Memory grows with M times the activations of one object, plus a few (B, M) matrices.

    Args:
        similarity: scores keys for queries.
    """

    def __init__(self, *, similarity: Similarity) -> None:
        super().__init__()
        self.similarity = similarity

    def forward(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> Tensor:
        """Read the support.

        Args:
            encoder: f, of objects to (m, D) keys.
            query: (B, D) encoded queries.
            support: the M objects to read.
            exclude: (B,) id of the object that each query must not read, or None to read all.

        Returns:
            (B, C) class scores in float32 or wider; see `memlab.functional.class_scores`.
        """
        scores = self.score(encoder, query, support, slice(None), exclude)
        return functional.class_scores(scores, support.labels, support.num_classes)

    def score(self, encoder: nn.Module, query: Tensor, support: Support, part: slice, exclude: Tensor | None) -> Tensor:
        """(B, m) scores of a part of the support, encoded now."""
        scores: Tensor = self.similarity(query, encoder(support.inputs(part)))
        return scores if exclude is None else functional.exclude_rows(scores, support.ids[part], exclude)


class ChunkedMemory(FullMemory):
    """The same read, a chunk at a time in two passes (section 4.2, eqs. 15-17).

    Pass 1 encodes each chunk without graph and keeps the running maximum and sum of each class. Pass 2, the backward,
    encodes each chunk again with graph and sends ``exp(z - max) / Z`` back through it. Activations of one chunk are
    held at a time, and no (B, M) matrix. Both passes see the same dropout and the same augmentation.

    Args:
        similarity: scores keys for queries.
        chunk_size: support objects encoded at a time.

    Raises:
        ValueError: for a chunk size that is not a whole number of at least 1.
    """

    def __init__(self, *, similarity: Similarity, chunk_size: int) -> None:
        super().__init__(similarity=similarity)
        self.chunk_size = check_whole_number("chunk_size", chunk_size)

    def forward(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> Tensor:
        """Read the support; see `FullMemory.forward`."""
        parameters = [p for module in (encoder, self.similarity) for p in module.parameters() if p.requires_grad]
        read: Tensor = _TwoPassRead.apply(self, encoder, support, exclude, query, *parameters)
        return read

    def parts(self, support: Support) -> Iterator[slice]:
        """The chunks, in order."""
        for start in range(0, len(support), self.chunk_size):
            yield slice(start, start + self.chunk_size)


class _TwoPassRead(torch.autograd.Function):
    """The chunked read as one differentiable function of the queries and of the parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        memory: ChunkedMemory,
        encoder: nn.Module,
        support: Support,
        exclude: Tensor | None,
        query: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.memory, ctx.encoder, ctx.support, ctx.exclude = memory, encoder, support, exclude
        ctx.random_state = _RandomState(query.device)
        ctx.autocast = _AutocastState(query.device)
        sums: functional.ClassSums | None = None
        with ctx.autocast.again():
            for part in memory.parts(support):
                scores = memory.score(encoder, query, support, part, exclude)
                chunk_sums = functional.class_sums(scores, support.labels[part], support.num_classes)
                sums = chunk_sums if sums is None else functional.merge_class_sums(sums, chunk_sums)
        assert sums is not None, "a support has at least one object"
        class_scores = functional.log_class_sums(sums)
        ctx.save_for_backward(class_scores, query, *parameters)
        return class_scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        class_scores, query, *parameters = ctx.saved_tensors
        inputs = [query.detach().requires_grad_(), *parameters]
        totals: list[Tensor | None] = [None] * len(inputs)
        with ctx.random_state.again(), ctx.autocast.again(), torch.enable_grad():
            for part in ctx.memory.parts(ctx.support):
                scores = ctx.memory.score(ctx.encoder, inputs[0], ctx.support, part, ctx.exclude)
                chunk_gradient = functional.class_scores_gradient(
                    scores.detach(), ctx.support.labels[part], class_scores, gradient
                )
                found = torch.autograd.grad(scores, inputs, chunk_gradient, allow_unused=True)
                totals = [_sum(total, part_of_it) for total, part_of_it in zip(totals, found, strict=True)]
        return None, None, None, None, *totals


def _sum(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Add in place; None stands for zero."""
    if total is None or more is None:
        return more if total is None else total
    return total.add_(more)


class _RandomState:
    """State of torch's global generators, to replay what was drawn from here on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host_state = torch.get_rng_state()
        self._device_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within this context the generators start from the state kept; afterwards they are as before."""
        with torch.random.fork_rng(devices=[] if self._device_state is None else [self._device]):
            torch.set_rng_state(self._host_state)
            if self._device_state is not None:
                torch.cuda.set_rng_state(self._device_state, self._device)
            yield


class _AutocastState:
    """Whether and how autocast is on, to enter it again where torch does not carry it: into a custom backward."""

    def __init__(self, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = torch.get_autocast_dtype(device.type)
        self._enabled = torch.is_autocast_enabled(device.type)

    def again(self) -> torch.autocast:
        """Autocast as it was. Without its weight cache: casts cached in the pass without graph would lose gradients."""
        return torch.autocast(self._device_type, self._dtype, self._enabled, cache_enabled=False)
