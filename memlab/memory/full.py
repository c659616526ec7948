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
from memlab.memory.scored_support import ScoredSupport


class FullMemory(ExactMemory):
    """The definition: all M keys are encoded and read at once.

    Memory grows with M times the activations of one object, plus a few (B, M) matrices for each read, and with values
    of ``tabr`` (B, M, D).

    Args:
        similarity: scores keys for queries.
        hops: see `memlab.memory.hops.Hops`.
    """

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        scored = ScoredSupport(encoder, self.similarity, support, exclude)
        if self.hops is not None:
            return self._read_after_hops(self.hops, query, scored)
        return self._read_classes(scored.scores(query, slice(None)), classes)

    def _read_after_hops(self, hops: Hops, query: Tensor, scored: ScoredSupport) -> ClassRead:
        keys = scored.keys(slice(None))
        values = hops.values(keys, scored.support.labels, scored.support.ids)

        def read(hop: int, reader: Tensor, origins: Tensor | None) -> ValueRead:
            scores = scored.scores_of(reader, hops.keys(hop, keys), slice(None))
            return functional.value_read(scores, values, origins)

        reader = hops.path(query, read)[-1]
        if hops.answers_by_layer:
            return hops.layer(reader)
        return self._read_classes(scored.scores_of(reader, keys, slice(None)), Classes.of(scored.support))

    def _read_classes(self, scores: Tensor, classes: Classes) -> ClassRead:
        return functional.read(scores, *classes, bounded=functional.are_bounded(self.similarity.bound))

    def shrink(self) -> None:
        """See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a training step; chunked gives the same at the memory of one chunk")
