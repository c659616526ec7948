"""The definition: all M keys are encoded and read at once."""

from __future__ import annotations

from torch import Tensor, nn

from memlab import functional
from memlab.data.support import Support
from memlab.functional import ClassRead, OwnRead
from memlab.memory.classes import Classes
from memlab.memory.memory import Memory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.scored_support import ScoredSupport


class FullMemory(Memory):
    """The definition: all M keys are encoded and read at once.

    Memory grows with M times the activations of one object, plus a few (B, M) matrices.

    Args:
        similarity: scores keys for queries.
    """

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the support; see `Memory.read`."""
        return self._read(encoder, query, support, Classes.of(support), exclude)

    def read_own(
        self, encoder: nn.Module, query: Tensor, support: Support, targets: Tensor, exclude: Tensor | None = None
    ) -> OwnRead:
        """Read the support for the loss alone; see `Memory.read_own` and `Classes.present`."""
        classes, targets = Classes.present(support, targets)
        return self._own(self._read(encoder, query, support, classes, exclude), targets)

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        scores = ScoredSupport(encoder, self.similarity, support, exclude).scores(query, slice(None))
        return functional.read(scores, *classes, bounded=functional.are_bounded(self.similarity.bound))

    def shrink(self) -> None:
        """See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a training step; chunked gives the same at the memory of one chunk")
