"""The memory modes: one read of a support set, equal results, different cost.

A memory maps encoded queries and a support to class scores (B, C); their log_softmax is the log of the class mass
(eq. 13). Gradients reach the encoder through the queries and through the keys.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from memlab import functional
from memlab.argument_checks import check_number, check_whole_number
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

    With an activation budget the last chunks, as many as fit, keep their graph from pass 1 and are not encoded twice:
    of n chunks with k kept, a step encodes ``2 n - k`` chunks in place of ``2 n`` and holds k graphs more.

    BatchNorm normalises each chunk by the chunk's own statistics, which is not what `FullMemory` does; a warning says
    so. Its running statistics are updated in pass 1 alone.

    Args:
        similarity: scores keys for queries.
        chunk_size: support objects encoded at a time.
        activation_budget: memory for graphs kept from pass 1: bytes, or below 1 a share of what is free on the device
            at the first step; 0 for the leanest step.

    Raises:
        ValueError: for a chunk size that is not a whole number of at least 1, or a budget below 0.
    """

    def __init__(self, *, similarity: Similarity, chunk_size: int, activation_budget: float = 0) -> None:
        super().__init__(similarity=similarity)
        self.chunk_size = check_whole_number("chunk_size", chunk_size)
        self.activation_budget = check_number("activation_budget", activation_budget, at_least=0)
        self._kept_at_most: int | None = None
        self._knows_encoder = False

    def forward(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> Tensor:
        """Read the support; see `FullMemory.forward`."""
        parameters = [p for module in (encoder, self.similarity) for p in module.parameters() if p.requires_grad]
        if not self._knows_encoder:
            self._knows_encoder = True
            _warn_of_batch_norm(encoder)
        read: Tensor = _TwoPassRead.apply(
            self, encoder, support, exclude, self._kept_chunks(encoder, query, support, exclude), query, *parameters
        )
        return read

    def parts(self, support: Support) -> list[slice]:
        """The chunks, in order."""
        return [slice(start, start + self.chunk_size) for start in range(0, len(support), self.chunk_size)]

    def _kept_chunks(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None) -> int:
        """How many chunks are to keep their graph; measured at the first step."""
        if self.activation_budget == 0 or not torch.is_grad_enabled():
            return 0
        if self._kept_at_most is None:
            budget = self.activation_budget
            if budget < 1:
                budget *= _free_bytes(query.device)
            self._kept_at_most = int(budget // self._graph_bytes(encoder, query, support, exclude))
        return min(self._kept_at_most, len(self.parts(support)))

    def _graph_bytes(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None) -> int:
        """Bytes that the graph of one chunk holds: what autograd saves for it, parameters apart, and its scores."""
        own = {parameter.untyped_storage().data_ptr() for parameter in [*encoder.parameters(), *self.parameters()]}
        saved: dict[int, int] = {}

        def weigh(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            _RandomState(query.device).again(),
            _running_statistics_restored(encoder),
            torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
        ):
            scores = self.score(encoder, query.detach().requires_grad_(), support, self.parts(support)[0], exclude)
        weigh(scores)
        return sum(saved.values())


class _TwoPassRead(torch.autograd.Function):
    """The chunked read as one differentiable function of the queries and of the parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        memory: ChunkedMemory,
        encoder: nn.Module,
        support: Support,
        exclude: Tensor | None,
        kept_chunks: int,
        query: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.memory, ctx.encoder, ctx.support, ctx.exclude = memory, encoder, support, exclude
        ctx.random_state = _RandomState(query.device)
        ctx.autocast = _AutocastState(query.device)
        parts = memory.parts(support)
        first_kept = len(parts) - kept_chunks
        ctx.encoded_again, ctx.kept = parts[:first_kept], []
        sums: functional.ClassSums | None = None
        for number, part in enumerate(parts):
            keep = number >= first_kept
            with torch.inference_mode(not keep), torch.set_grad_enabled(keep), ctx.autocast.again():
                reader = query.detach().requires_grad_(keep)
                scores = memory.score(encoder, reader, support, part, exclude)
            if keep:
                ctx.kept.append((part, reader, scores))
            chunk_sums = functional.class_sums(scores.detach(), support.labels[part], support.num_classes)
            sums = chunk_sums if sums is None else functional.merge_class_sums(sums, chunk_sums)
        assert sums is not None, "a support has at least one object"
        class_scores = functional.log_class_sums(sums)
        ctx.save_for_backward(class_scores, query, *parameters)
        return class_scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        class_scores, query, *parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * (1 + len(parameters))
        for part, reader, scores in _TwoPassRead.graphs(ctx, query):
            chunk_gradient = functional.class_scores_gradient(
                scores.detach(), ctx.support.labels[part], class_scores, gradient
            )
            found = torch.autograd.grad(scores, [reader, *parameters], chunk_gradient, allow_unused=True)
            totals = [_sum(total, part_of_it) for total, part_of_it in zip(totals, found, strict=True)]
        return None, None, None, None, None, *totals

    @staticmethod
    def graphs(ctx: Any, query: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """One chunk after the other with its queries and scores, with graph: kept from pass 1, or encoded again.

        A kept graph serves once; a second backward encodes all chunks again.
        """
        again = ctx.encoded_again
        if ctx.kept:
            ctx.encoded_again = ctx.memory.parts(ctx.support)
        while ctx.kept:
            yield ctx.kept.pop(0)
        with ctx.random_state.again(), _running_statistics_restored(ctx.encoder):
            for part in again:
                with torch.enable_grad(), ctx.autocast.again():
                    reader = query.detach().requires_grad_()
                    scores = ctx.memory.score(ctx.encoder, reader, ctx.support, part, ctx.exclude)
                yield part, reader, scores
                del reader, scores


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


def _batch_norms(encoder: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    return {name: m for name, m in encoder.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def _warn_of_batch_norm(encoder: nn.Module) -> None:
    if found := _batch_norms(encoder):
        warnings.warn(
            f"memory=chunked: the encoder has BatchNorm ({', '.join(found)}), which normalises each chunk by the"
            " chunk's own statistics; memory=full normalises all support objects together, so results differ. GroupNorm"
            " and LayerNorm look at one object at a time and keep both equal.",
            stacklevel=3,
        )


@contextmanager
def _running_statistics_restored(encoder: nn.Module) -> Iterator[None]:
    """Within this context chunks that were seen before are seen again; afterwards BatchNorm does not know."""
    buffers = [buffer for norm in _batch_norms(encoder).values() for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def _free_bytes(device: torch.device) -> int:
    """Memory that can still be had on a device, what torch has reserved and does not use included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)
