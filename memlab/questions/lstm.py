"""A rival without a memory: an LSTM that reads the story, word after word, and then the question."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from memlab.checks import check_whole_number
from memlab.data.vocabulary import PADDING
from memlab.questions.batch import StoryBatch
from memlab.questions.network import StoryNetwork, StoryRead

BUCKETS_PER_DOUBLING = 2
"""Texts are read together whose lengths differ by a factor of 1.4 at most. A packed sequence would need no padding, but
takes ten times as long on a CPU, where it is read step by step."""


class LSTMReader(StoryNetwork):
    """``scores = W h + b`` with the state h of an LSTM after all words that were told before a question, and its own.

    The LSTM of Weston et al. 2015, section 5, and of Sukhbaatar et al. 2015. It begins anew for each question, so that
    of each story it reads what the question may read: the sentences that are its cells, the oldest first.

    Args:
        words: V, numbers of words.
        answers: C.
        size: of the vectors of words.
        hidden: of the state.

    Raises:
        ValueError: for a value below 1.
    """

    def __init__(self, *, words: int, answers: int, size: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, check_whole_number("size", size), padding_idx=PADDING)
        self.lstm = nn.LSTM(size, check_whole_number("hidden", hidden), batch_first=True)
        self.answer = nn.Linear(hidden, answers)

    def read(self, batch: StoryBatch) -> StoryRead:
        """See `StoryNetwork.read`; without weights, as nothing is picked."""
        states = self.answer.weight.new_zeros(len(batch), self.lstm.hidden_size)
        for questions, texts, lengths in _alike(*_texts(batch)):
            outputs, _ = self.lstm(self.words(texts))
            last = outputs[torch.arange(len(texts), device=texts.device), lengths - 1]
            states = states.index_put((questions,), last)
        return StoryRead(self.answer(states), ())


def _texts(batch: StoryBatch) -> tuple[Tensor, Tensor]:
    """What each question reads, one after the other, (n,) words of all; and (Q,) how many words of it each reads."""
    told, asked = batch.words[batch.sentences[batch.cells]], batch.questions
    of_told = batch.asker[:, None].expand_as(told)[told != PADDING]
    of_asked = torch.arange(len(asked), device=asked.device)[:, None].expand_as(asked)[asked != PADDING]
    reader = torch.cat([of_told, of_asked])
    words = torch.cat([told[told != PADDING], asked[asked != PADDING]])
    return words[reader.argsort(stable=True)], reader.bincount(minlength=len(asked))


def _alike(words: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Texts of about the same length as rectangles: (n,) whose, (n, L) words, (n,) lengths."""
    firsts = lengths.cumsum(0) - lengths
    buckets = (lengths.log2() * BUCKETS_PER_DOUBLING).ceil()
    for bucket in buckets.unique():
        whose = (buckets == bucket).nonzero().flatten()
        across = torch.arange(int(lengths[whose].max()), device=words.device)
        there = across < lengths[whose, None]
        yield whose, words[(firsts[whose, None] + across) * there].masked_fill(~there, PADDING), lengths[whose]
