"""The same read, a chunk at a time in two passes: the activations of one chunk are held, and no (B, M) matrix."""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from memlab.checks import check_number, check_whole_number
from memlab.data.parts import parts
from memlab.data.support import Support
from memlab.device import free_memory, seconds
from memlab.functional import ClassRead
from memlab.memory.batch_norm import running_statistics_restored, warn_of_batch_norm
from memlab.memory.classes import Classes
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.hops import Hops
from memlab.memory.kept_keys import kept_keys
from memlab.memory.out_of_memory import OutOfMemoryError, is_out_of_memory
from memlab.memory.readable import Readable
from memlab.memory.replay import RandomState
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.similarity import Similarity
from memlab.memory.stored_keys import StoredKeys
from memlab.memory.two_pass import read_in_two_passes

log = logging.getLogger(__name__)


class ChunkedMemory(ExactMemory):
    """The same read, a chunk at a time in two passes (section 4.2, eqs. 15-17).

    Pass 1 encodes each chunk without graph and keeps the running maximum and sum of each class. Pass 2, the backward,
    encodes each chunk again with graph and sends ``exp(z - max) / Z`` back through it. Activations of one chunk are
    held at a time, and no (B, M) matrix. Both passes see the same dropout and the same augmentation.

    With an activation budget the last chunks, as many as fit, keep their graph from pass 1 and are not encoded twice:
    of n chunks with k kept, a step encodes ``2 n - k`` chunks in place of ``2 n`` and holds k graphs more.

    With hops the keys of all chunks are kept, and their values, with the gradients of both: a few (M, D) tensors, and
    activations of one chunk still (`memlab.memory.kept_keys`). They are read tile by tile, each object is encoded
    twice however many hops there are, and no (B, M) matrix is held.

    BatchNorm normalises each chunk by the chunk's own statistics, which is not what `FullMemory` does; a warning says
    so. Its running statistics are updated in pass 1 alone.

    Args:
        similarity: scores keys for queries.
        chunk_size: support objects encoded at a time; ``auto`` measures at the first step which size is good on this
            device for this encoder.
        activation_budget: memory for graphs kept from pass 1: bytes, or below 1 a share of what is free on the device
            at the first step; 0 for the leanest step.
        hops: see `memlab.memory.hops.Hops`.

    Raises:
        ValueError: for a chunk size that is neither a whole number of at least 1 nor ``auto``, or a budget below 0.
    """

    def __init__(
        self,
        *,
        similarity: Similarity,
        chunk_size: int | str,
        activation_budget: float = 0,
        hops: Hops | None = None,
    ) -> None:
        super().__init__(similarity=similarity, hops=hops)
        self.chunk_size: int | None = None
        """Support objects encoded at a time, as given, measured or halved; None until ``auto`` has measured."""
        if chunk_size != "auto":
            self.chunk_size = check_whole_number("chunk_size", chunk_size, or_else="auto")
        self.activation_budget = check_number("activation_budget", activation_budget, at_least=0)
        self._kept_at_most: int | None = None
        self._asked = chunk_size, activation_budget
        self._knows_encoder = False

    def opened(
        self, encoder: nn.Module, support: Support, classes: Classes, exclude: Tensor | None, *, like: Tensor
    ) -> Readable:
        """See `ExactMemory.opened`."""
        if not self._knows_encoder:
            self._knows_encoder = True
            warn_of_batch_norm(encoder, mode="chunked")
        scored = ScoredSupport(encoder, self.similarity, support, exclude)
        if self.chunk_size is None:
            with RandomState(like.device).again(), running_statistics_restored(encoder):
                self.chunk_size = _good_chunk_size(like, scored)
        kept = self._kept_chunks(like, scored)
        if self.hops is None:
            return _InTwoPasses(scored, classes, self.parts(support), kept)
        keys = kept_keys(scored, parts=self.parts(support), kept=kept)
        stored = StoredKeys(keys, classes.labels, support.ids, classes.number, self.similarity, self.hops)
        return stored.readable(exclude)

    def parts(self, support: Support) -> list[slice]:
        """The chunks, in order."""
        assert self.chunk_size is not None, "measured when the first support is read"
        return parts(len(support), self.chunk_size)

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `Memory.sizes`."""
        return {"chunk": self.chunk_size}

    def shrink(self) -> None:
        """Halve the chunk, after memory has run out in a step; as many graphs as before are kept, of half the size.

        Raises:
            OutOfMemoryError: if a chunk is one object already.
        """
        self.chunk_size = halved(self.chunk_size)

    def encoded_with_graph(self, *, support: int, queries: int) -> tuple[int, int]:
        """See `Memory.encoded_with_graph`; the largest chunk that ``auto`` usually tries, until it has measured."""
        return support, min(self.chunk_size or USUALLY_TRIED, support)

    def kept_graphs(self, *, parts: int, graph_bytes: float, free: int) -> int:
        """See `Memory.kept_graphs`."""
        return min(self._graphs(max(graph_bytes, 1), free=free), parts)

    def read_bytes(self, *, support: int, embedding_size: int) -> int:
        """See `Memory.read_bytes`: with hops keys and values are kept."""
        return 0 if self.hops is None else self.hops.read_bytes(support=support, embedding_size=embedding_size)

    def small(self, *, objects: int, at_once: int) -> ChunkedMemory:
        """See `Memory.small`; no graph is kept."""
        made = copy.deepcopy(self)
        made.chunk_size, made.activation_budget, made._knows_encoder = at_once, 0, True
        return made

    def state(self) -> dict[str, Any]:
        """What was measured or halved, on which rounding depends; see `Memory.state`."""
        return {"asked": self._asked, "chunk_size": self.chunk_size, "kept_at_most": self._kept_at_most}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it over, if the same was asked for; see `Memory.restore`."""
        if state.get("asked") == self._asked:
            self.chunk_size, self._kept_at_most = state["chunk_size"], state["kept_at_most"]

    def _kept_chunks(self, query: Tensor, scored: ScoredSupport) -> int:
        """How many chunks are to keep their graph; measured at the first step."""
        if self.activation_budget == 0 or not torch.is_grad_enabled():
            return 0
        chunks = self.parts(scored.support)
        if self._kept_at_most is None:
            self._kept_at_most = self._graphs(graph_bytes(query, scored, chunks[0]), free=free_memory(query.device))
        return min(self._kept_at_most, len(chunks))

    def _graphs(self, size: float, *, free: int) -> int:
        """How many of a size the budget is for."""
        budget = self.activation_budget * (free if self.activation_budget < 1 else 1)
        return int(budget // size)


class _InTwoPasses(Readable):
    """A support without hops, which is encoded when it is read; see `read_in_two_passes`."""

    def __init__(self, scored: ScoredSupport, classes: Classes, parts: list[slice], kept: int) -> None:
        self._scored, self._classes, self._parts, self._kept = scored, classes, parts, kept

    def classes(self, reader: Tensor) -> ClassRead:
        """See `Readable.classes`."""
        words: dict[str, Any] = {"classes": self._classes, "parts": self._parts, "kept": self._kept}
        return read_in_two_passes(reader, self._scored, **words)


def graph_bytes(query: Tensor, scored: ScoredSupport, part: slice) -> int:
    """Bytes that the graph of one part holds: what autograd saves for it, parameters apart, and its scores."""
    own = {
        parameter.untyped_storage().data_ptr()
        for module in (scored.encoder, scored.similarity)
        for parameter in module.parameters()
    }
    saved: dict[int, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        RandomState(query.device).again(),
        running_statistics_restored(scored.encoder),
        torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
    ):
        scores = scored.scores(query.detach().requires_grad_(), part)
    weigh(scores)
    return sum(saved.values())


def halved(chunk_size: int | None) -> int:
    """Half a chunk, for a memory that has run out of memory in a step.

    Raises:
        OutOfMemoryError: if a chunk is one object already.
    """
    if chunk_size is None or chunk_size == 1:
        raise OutOfMemoryError(
            "out of memory in a training step with a chunk of one object; needs a smaller batch or encoder"
        )
    log.warning(
        f"out of memory in a step with chunks of {chunk_size:,} objects: computed again and going on with"
        f" {chunk_size // 2:,}; chunk_size={chunk_size // 2} starts there"
    )
    return chunk_size // 2


SMALLEST_CHUNK_TRIED = 32
USUALLY_TRIED = 1024
"""The largest chunk that is tried where 256 is the best, as of most encoders on a CPU that has nothing else to do."""
WORTH_ITS_MEMORY = 0.95
"""A chunk of twice the size is better if an object takes less than this share of the time."""


def _good_chunk_size(query: Tensor, scored: ScoredSupport) -> int:
    """Measure reads of ever larger chunks, forward and backward, until two doublings have not been worth their memory.

    Args:
        query: (B, D) encoded queries.
        scored: the support, of which the first objects are read.
    """
    size = len(scored.support)
    reader = query.detach().requires_grad_(torch.is_grad_enabled())
    tried: dict[int, float] = {}
    best = chunk = min(SMALLEST_CHUNK_TRIED, size)
    while True:
        try:
            times = [seconds(partial(_read_and_back, reader, scored, chunk), query.device) for _ in range(3)]
            tried[chunk] = min(times[1:]) / chunk  # the first warms up
        except (RuntimeError, MemoryError) as error:
            if chunk == best or not is_out_of_memory(error):
                raise
            break
        if tried[chunk] < WORTH_ITS_MEMORY * tried[best]:
            best = chunk
        if chunk == size or chunk >= 4 * best:
            break
        chunk = min(2 * chunk, size)
    microseconds = ", ".join(f"{1e6 * each:,.1f} at {chunk:,}" for chunk, each in tried.items())
    log.info(f"chunk_size=auto: {best:,}, measured in microseconds for an object: {microseconds}")
    return best


def _read_and_back(query: Tensor, scored: ScoredSupport, size: int) -> None:
    """Read the first so many objects as one chunk, and go back through them."""
    classes = Classes.of(scored.support)
    class_scores = read_in_two_passes(query, scored, classes=classes, parts=[slice(0, size)], kept=0).class_scores
    if class_scores.requires_grad:
        total = class_scores.masked_fill(class_scores.isneginf(), 0).sum()
        wanted = [tensor for tensor in (query, *scored.parameters) if tensor.requires_grad]
        torch.autograd.grad(total, wanted, allow_unused=True)
