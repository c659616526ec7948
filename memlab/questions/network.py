"""What all networks over stories do."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from memlab.questions.batch import StoryBatch


class StoryRead(NamedTuple):
    """What questions have read of their stories, and what they answer."""

    scores: Tensor
    """(Q, C) of the answers; their softmax are the probabilities."""
    weights: tuple[Tensor, ...]
    """Of each hop (P,) the weights of the cells; see `StoryBatch`."""


class StoryNetwork(nn.Module):
    """Answers questions over stories."""

    reads_all_cells = False
    """Whether batches must be made with ``most_cells=None``."""

    def read(self, batch: StoryBatch) -> StoryRead:
        """Read the stories, and answer."""
        raise NotImplementedError

    def losses(self, batch: StoryBatch) -> Tensor:
        """(Q,) nats, minus the log-probability of the true answer; 0 of one that training has not seen."""
        return F.cross_entropy(self.read(batch).scores, batch.answers, ignore_index=-1, reduction="none")

    @property
    def rate_factor(self) -> float:
        """By what the learning rate is multiplied now, besides its schedule."""
        return 1.0

    def after_validation(self, nll: float) -> None:
        """Take note of what a validation has come to, in nats per question."""

    def progress(self) -> dict[str, Any]:
        """Plain values that training goes on from, besides the weights."""
        return {}

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from there."""
