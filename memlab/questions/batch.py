"""Stories as tensors: each distinct sentence once, and of every question which sentences it may read."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class StoryBatch:
    """S stories with Q questions. Memories are ragged: *cells* lie one after the other, those of a question together.

    A cell is a sentence that a question may read, one told before it; the same sentence is a cell of each question that
    may read it.
    """

    ids: Tensor
    """(Q,) number of each question among those that are encoded."""
    words: Tensor
    """(U, J) words of the distinct sentences, padded."""
    questions: Tensor
    """(Q, J') words of the questions, padded."""
    answers: Tensor
    """(Q,) number of the true answer; -1 for one that training has not seen."""
    sentences: Tensor
    """(F,) which of the distinct sentences is told, story after story."""
    story_of_sentence: Tensor
    """(F,) in which story."""
    story_of_question: Tensor
    """(Q,) in which story each is asked."""
    told: Tensor
    """(Q,) how many sentences each may read, at least 1."""
    cells: Tensor
    """(P,) which of the F sentences each cell is."""
    asker: Tensor
    """(P,) whose cell it is, ascending; P is the sum of ``told``."""
    age: Tensor
    """(P,) how many sentences were told between it and the question: 0 is the newest."""
    supports: Tensor
    """(Q, H) cells that the answer follows from, in the order in which the data names them; -1 for none."""

    def __len__(self) -> int:
        return len(self.answers)

    def to(self, device: torch.device | str) -> StoryBatch:
        """On another device."""
        return StoryBatch(**{each.name: getattr(self, each.name).to(device) for each in fields(self)})
