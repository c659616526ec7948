"""Memories that read every object of a support, whether at once or in chunks."""

from __future__ import annotations

from torch import Tensor, nn

from memlab.data.support import Support
from memlab.functional import ClassRead, OwnRead
from memlab.memory.classes import Classes
from memlab.memory.memory import Memory


class ExactMemory(Memory):
    """Reads every object of the support; how is left to `_read`."""

    has_hops = True

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the support; see `Memory.read`."""
        return self._read(encoder, query, support, Classes.of(support), exclude)

    def read_own(
        self, encoder: nn.Module, query: Tensor, support: Support, targets: Tensor, exclude: Tensor | None = None
    ) -> OwnRead:
        """Read the support for the loss alone; see `Memory.read_own` and `Classes.present`."""
        if self.hops is not None:  # whose values are of all classes
            return super().read_own(encoder, query, support, targets, exclude)
        classes, targets = Classes.present(support, targets)
        return self._own(self._read(encoder, query, support, classes, exclude), targets)

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        """As `read`, of the classes that are to be told apart."""
        raise NotImplementedError
