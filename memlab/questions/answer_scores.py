"""Which word answers a question, given the picked facts: s_R of a memory network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from memlab.data.vocabulary import UNKNOWN
from memlab.questions.batch import StoryBatch
from memlab.questions.fact_scores import Bags
from memlab.questions.matches import DEVIATION, MatchVectors, clamped_places


class AnswerScores(nn.Module):
    """``s_R(x, w) = f(z(x))^T e(w)`` (eq. 4), with ``z = Q phi(q) + sum_h g_h * (F phi(m_h) + matches)``.

    f leaves z as it is, or is a layer: ``f(z) = W tanh(z) + b``. e(w) is a vector of the word w, and, with matches, of
    each place in the question and in each picked fact that holds w. The matches of a fact are `MatchVectors` of it with
    the question and with the fact picked before it.

    Args:
        words: V.
        answer_words: (C,) the number of each answer.
        longest: places of words told apart.
        size: d.
        hops: facts picked at most.
        ngrams: words of the longest run.
        matches: whether words that are the same are features.
        nonlinear: whether f is a layer.
    """

    answer_words: Tensor

    def __init__(
        self,
        *,
        words: int,
        answer_words: Sequence[int],
        longest: int,
        size: int,
        hops: int,
        ngrams: int,
        matches: bool,
        nonlinear: bool,
    ) -> None:
        super().__init__()
        self.bags = Bags("question", "fact", words=words, ngrams=ngrams, size=size)
        self.gates = nn.Parameter(torch.ones(hops, size))
        self.answers = nn.Parameter(torch.empty(len(answer_words), size).normal_(std=DEVIATION))
        self.layer = nn.Sequential(nn.Tanh(), nn.Linear(size, size)) if nonlinear else nn.Identity()
        self.has_matches, self.words = matches, words
        if matches:
            self.like_question, self.like_before = (MatchVectors(longest=longest, size=size) for _ in range(2))
            self.in_question = nn.Parameter(torch.empty(longest, size).normal_(std=DEVIATION))
            self.in_fact = nn.Parameter(torch.empty(hops, longest, size).normal_(std=DEVIATION))
        self.register_buffer("answer_words", torch.tensor(answer_words), persistent=False)

    def forward(self, batch: StoryBatch, picked: Tensor) -> Tensor:
        """(Q, C) scores, given (Q, hops) picked cells; -1 for none."""
        facts = [batch.sentences[batch.cells[cells]] for cells in picked.mT]  # of none any, left out below
        there = (picked >= 0).to(self.gates.dtype).mT[:, :, None]
        vectors = self.bags(batch.questions, "question")
        for hop, made in enumerate(self._facts(batch, facts)):
            vectors = vectors + there[hop] * self.gates[hop] * made
        vectors = self.layer(vectors)
        scores: Tensor = vectors @ self.answers.mT
        return scores + self._found(batch, vectors, facts, there) if self.has_matches else scores

    def _facts(self, batch: StoryBatch, facts: list[Tensor]) -> list[Tensor]:
        """Of each hop (Q, d)."""
        bags = self.bags(batch.words, "fact")
        made = [bags[fact] for fact in facts]
        if not self.has_matches:
            return made
        told = [batch.words[fact] for fact in facts]
        made = [each + self.like_question(words, batch.questions) for each, words in zip(made, told, strict=True)]
        chained = [self.like_before(words, before) for before, words in pairwise(told)]
        return [made[0], *(each + link for each, link in zip(made[1:], chained, strict=True))]

    def _found(self, batch: StoryBatch, vectors: Tensor, facts: list[Tensor], there: Tensor) -> Tensor:
        """(Q, C) what answers get for the places where they stand in question and facts."""
        by_word = vectors.new_zeros(len(vectors), self.words)
        texts = [batch.questions, *(batch.words[fact] for fact in facts)]
        counted = [torch.ones_like(there[0]), *there]
        for text, table, counts in zip(texts, [self.in_question, *self.in_fact], counted, strict=True):
            scores = vectors @ table[clamped_places(text, len(table))].mT
            by_word = by_word.scatter_add(1, text, scores * counts * (text > UNKNOWN))
        return by_word[:, self.answer_words]
