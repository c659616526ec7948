"""The memory modes: one read of a support set, equal results, different cost.

A memory maps encoded queries and a support to class scores (B, C); their log_softmax is the log of the class mass
(eq. 13). Gradients reach the encoder through the queries and through the keys.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor, nn

from memlab import functional
from memlab.argument_checks import check_number, check_whole_number
from memlab.similarity import Similarity
from memlab.support import Support
from memlab.two_pass import RandomState, read_encoded_again


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
        return read_encoded_again(
            lambda reader, part: self.score(encoder, reader, support, part, exclude),
            parts=self.parts(support),
            kept=self._kept_chunks(encoder, query, support, exclude),
            again=lambda: _running_statistics_restored(encoder),
            labels=support.labels,
            num_classes=support.num_classes,
            query=query,
            parameters=parameters,
        )

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
            RandomState(query.device).again(),
            _running_statistics_restored(encoder),
            torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
        ):
            scores = self.score(encoder, query.detach().requires_grad_(), support, self.parts(support)[0], exclude)
        weigh(scores)
        return sum(saved.values())


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
