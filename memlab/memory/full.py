"""The definition: all M keys are encoded and read at once."""

from __future__ import annotations

from torch import Tensor, nn

from memlab import functional
from memlab.data.support import Support
from memlab.functional import ClassRead
from memlab.memory.classes import Classes
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.scored_support import ScoredSupport


class FullMemory(ExactMemory):
    """The definition: all M keys are encoded and read at once.

    Memory grows with M times the activations of one object, plus a few (B, M) matrices.

    Args:
        similarity: scores keys for queries.
    """

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        scores = ScoredSupport(encoder, self.similarity, support, exclude).scores(query, slice(None))
        return functional.read(scores, *classes, bounded=functional.are_bounded(self.similarity.bound))

    def shrink(self) -> None:
        """See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a training step; chunked gives the same at the memory of one chunk")
