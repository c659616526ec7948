"""Which classes a read tells apart: all, or only those that the loss can depend on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from memlab.data.support import Support
from memlab.index import Places


class Classes(NamedTuple):
    """Which class each object of a support is in, of those that the read is to tell apart."""

    labels: Tensor
    """(M,) from 0 to ``number`` - 1."""
    number: int

    @classmethod
    def of(cls, support: Support) -> Classes:
        """All C classes."""
        return cls(support.labels, support.num_classes)

    @classmethod
    def present(cls, support: Support, targets: Tensor) -> tuple[Classes, Tensor]:
        """Of more classes than objects, those alone that have any: the loss depends on no other.

        Args:
            support: the objects.
            targets: (B,) true class ids of the queries.

        Returns:
            the classes, and (B,) which of them each query is in: -1 for one without objects.
        """
        if support.num_classes <= len(support) or support.labels.device.type != "cpu":  # a GPU is not waited for
            return cls.of(support), targets
        present, labels = support.labels.unique(return_inverse=True)
        return cls(labels, len(present)), Places(present).of(targets)
