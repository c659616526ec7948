"""Memories that read every object of a support, whether at once or in chunks."""

from __future__ import annotations

from torch import Tensor, nn

from memlab.data.support import Support
from memlab.functional import ClassRead, OwnRead
from memlab.memory.classes import Classes
from memlab.memory.memory import Memory
from memlab.memory.readable import Readable, read_after


class ExactMemory(Memory):
    """Reads every object of the support; how is left to `opened`."""

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

    def opened(
        self, encoder: nn.Module, support: Support, classes: Classes, exclude: Tensor | None, *, like: Tensor
    ) -> Readable:
        """The support, to be read by one batch of queries.

        Args:
            encoder: f, of objects to (m, D) keys.
            support: the M objects, at least one.
            classes: those that are to be told apart.
            exclude: (B,) id of the object that each query must not read, or None to read all.
            like: (B, D) the queries, for their number, type and device.
        """
        raise NotImplementedError

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        """As `read`, of the classes that are to be told apart."""
        return read_after(self.hops, query, self.opened(encoder, support, classes, exclude, like=query))
