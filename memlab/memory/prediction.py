"""What a classifier says, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memlab.memory.evidence import Evidence


class Prediction(NamedTuple):
    """What the classifier says of a batch of queries, and why."""

    ids: Tensor
    """(B,) which object each query is."""
    labels: Tensor
    """(B,) true class ids."""
    log_probs: Tensor
    """(B, C) log of the class mass."""
    evidence: Evidence
    """Of the read that answers."""
    earlier: tuple[Evidence, ...] = ()
    """Of each hop before it."""

    @classmethod
    def join(cls, parts: Sequence[Prediction]) -> Prediction:
        """The predictions of several batches as one."""
        ids, labels, log_probs, evidence, earlier = zip(*parts, strict=True)
        of_hops = tuple(_joined(each) for each in zip(*earlier, strict=True))
        return cls(torch.cat(ids), torch.cat(labels), torch.cat(log_probs), _joined(evidence), of_hops)

    def cpu(self) -> Prediction:
        """The same in host memory."""
        evidence, *earlier = (Evidence(*(column.cpu() for column in each)) for each in (self.evidence, *self.earlier))
        return Prediction(self.ids.cpu(), self.labels.cpu(), self.log_probs.cpu(), evidence, tuple(earlier))

    @property
    def reads(self) -> dict[str, Evidence]:
        """The evidence of all reads by what they are, the one that answers last."""
        return {f"hop {number}": each for number, each in enumerate(self.earlier, 1)} | {"answer": self.evidence}

    def confusion(self) -> Tensor:
        """(C, C) how many objects of each class (row) were answered by each class (column)."""
        num_classes = self.log_probs.shape[1]
        pairs = self.labels * num_classes + self.log_probs.argmax(dim=1)
        return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def _joined(parts: Sequence[Evidence]) -> Evidence:
    return Evidence(*(torch.cat(column) for column in zip(*parts, strict=True)))
