"""What all networks over stories do."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from memlab.questions.batch import StoryBatch


class StoryRead(NamedTuple):
    """What questions have read of their stories, and what they answer."""

    scores: Tensor
    """(Q, C) of the answers; their softmax are the probabilities."""
    weights: tuple[Tensor, ...]
    """Of each hop (P,) the weights of the cells; see `StoryBatch`. Of a softmax they add up to 1 at most."""


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

    def at_progress(self, progress: float) -> None:
        """Take note that a training step begins, of the share of all that is done."""
