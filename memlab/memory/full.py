"""The definition: all M keys are encoded and read at once."""

from __future__ import annotations

from torch import Tensor, nn

from memlab import functional
from memlab.data.support import Support
from memlab.functional import ClassRead, ValueRead
from memlab.memory.classes import Classes
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.hops import Hops
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.readable import Readable
from memlab.memory.scored_support import ScoredSupport


class FullMemory(ExactMemory):
    """The definition: all M keys are encoded and read at once.

    Memory grows with M times the activations of one object, plus a few (B, M) matrices for each read, and with values
    of ``tabr`` (B, M, D).

    Args:
        similarity: scores keys for queries.
        hops: see `memlab.memory.hops.Hops`.
    """

    def opened(
        self, encoder: nn.Module, support: Support, classes: Classes, exclude: Tensor | None, *, like: Tensor
    ) -> Readable:
        """See `ExactMemory.opened`."""
        return _Encoded(ScoredSupport(encoder, self.similarity, support, exclude), classes, self.hops)

    def shrink(self) -> None:
        """See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a training step; chunked gives the same at the memory of one chunk")


class _Encoded(Readable):
    """A support of which all objects are encoded, with one graph.

    Args:
        scored: the support.
        classes: of its objects.
        hops: what values it holds; None for none.
    """

    def __init__(self, scored: ScoredSupport, classes: Classes, hops: Hops | None) -> None:
        self._scored, self._classes, self._hops = scored, classes, hops
        self._keys = scored.keys(slice(None))
        self._values = None if hops is None else hops.values(self._keys, scored.support.labels, scored.support.ids)

    def values(self, hop: int, reader: Tensor) -> ValueRead:
        """See `Readable.values`."""
        assert self._hops is not None
        assert self._values is not None
        scores = self._scored.scores_of(reader, self._hops.keys(hop, self._keys), slice(None))
        return functional.value_read(scores, self._values, self._hops.origins(reader))

    def classes(self, reader: Tensor) -> ClassRead:
        """See `Readable.classes`."""
        scores = self._scored.scores_of(reader, self._keys, slice(None))
        return functional.read(scores, *self._classes, bounded=functional.are_bounded(self._scored.similarity.bound))
