"""Which fact answers a question, given those picked already: s_O of a memory network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.data.vocabulary import PADDING
from memlab.questions.batch import StoryBatch
from memlab.questions.matches import DEVIATION, MatchVectors
from memlab.questions.ngrams import ngram_count, ngram_numbers

Texts = dict[str, Tensor]
"""Of each role that a text may have the vectors of all texts of a batch."""


class Asked(NamedTuple):
    """Questions of a batch that have picked as many facts."""

    who: Tensor
    """(n,) which of its questions."""
    picked: Tensor
    """(n, h) the cells that each has picked, in order."""


class Candidates(NamedTuple):
    """Cells that asked questions may pick."""

    row: Tensor
    """(m,) whose, as a row of `Asked`."""
    cells: Tensor
    """(m,) which."""
    number: Tensor
    """(m,) how many those of its question are."""


class Bags(nn.Module):
    """Texts as the sum of the vectors of their n-grams; see `memlab.questions.ngrams`.

    Args:
        dictionaries: names of the roles that a text may have, each with vectors of its own.
        words: V.
        ngrams: words of the longest run.
        size: d.
    """

    def __init__(self, *dictionaries: str, words: int, ngrams: int, size: int) -> None:
        super().__init__()
        self.words, self.ngrams = words, ngrams
        count = ngram_count(words, ngrams)
        self.tables = nn.ParameterDict({name: torch.empty(count, size).normal_(std=DEVIATION) for name in dictionaries})

    def forward(self, texts: Tensor, dictionary: str) -> Tensor:
        """(U, d) of (U, J) words."""
        numbers = ngram_numbers(texts, words=self.words, longest=self.ngrams)
        return F.embedding_bag(numbers, self.tables[dictionary], mode="sum", padding_idx=PADDING)


class FactScores(nn.Module):
    """``s_O(x, y, y') = e(x)^T (e(y) - e(y') + t [y newer than y'])``, above 0 where y is the better next fact (eq. 4).

    ``e(x) = Q phi(q) + sum_h g_h * F phi(m_h) + b_n`` of a question q and n picked facts m, elementwise gates g;
    ``e(y) = C phi(y) + sum_h o_h [y older than m_h] + matches``, which are `MatchVectors` of y with the question and
    with the fact picked last. phi counts n-grams, with dictionaries Q, F, C of their own. In the paper's features of
    what was written before what, Phi_t, those of y and of y' are apart; here s_O(x, y', y) is -s_O(x, y, y').

    That nothing more is to be picked is a fact too, neither newer nor older than any, whose e(y) is a vector.

    Args:
        words: V.
        longest: places of words told apart.
        size: d.
        hops: facts picked at most.
        ngrams: words of the longest run.
        matches: whether words that are the same are features.
    """

    def __init__(self, *, words: int, longest: int, size: int, hops: int, ngrams: int, matches: bool) -> None:
        super().__init__()
        self.bags = Bags("question", "fact", "candidate", words=words, ngrams=ngrams, size=size)
        self.gates = nn.Parameter(torch.ones(hops, size))
        self.count = nn.Parameter(torch.empty(hops, size).normal_(std=DEVIATION))
        self.older = nn.Parameter(torch.empty(hops, size).normal_(std=DEVIATION))
        self.newer = nn.Parameter(torch.empty(size).normal_(std=DEVIATION))
        self.nothing = nn.Parameter(torch.empty(size).normal_(std=DEVIATION))
        self.like_question = MatchVectors(longest=longest, size=size) if matches else None
        self.like_last = MatchVectors(longest=longest, size=size) if matches else None

    def texts(self, batch: StoryBatch) -> Texts:
        """What `queries` and `candidates` take: the questions as such, and the sentences as facts and as candidates."""
        texts = {"question": batch.questions, "fact": batch.words, "candidate": batch.words}
        return {role: self.bags(words, role) for role, words in texts.items()}

    def queries(self, batch: StoryBatch, texts: Texts, asked: Asked) -> Tensor:
        """(n, d) e(x)."""
        picked = asked.picked.shape[1]
        facts = texts["fact"][batch.sentences[batch.cells[asked.picked]]]
        return texts["question"][asked.who] + (self.gates[:picked] * facts).sum(1) + self.count[picked]

    def candidates(self, batch: StoryBatch, texts: Texts, asked: Asked, row: Tensor, cells: Tensor) -> Tensor:
        """(m, d) e(y) of cells that the questions of some rows may pick."""
        told, picked = batch.cells[cells], batch.cells[asked.picked]
        sentences = batch.sentences[told]
        older = (told[:, None] < picked[row]).to(self.older.dtype) @ self.older[: picked.shape[1]]
        vectors = texts["candidate"][sentences] + older
        if self.like_question is not None:
            vectors = vectors + self.like_question(batch.words[sentences], batch.questions[asked.who[row]])
        if self.like_last is not None and picked.shape[1]:
            last = batch.sentences[picked[:, -1]]
            vectors = vectors + self.like_last(batch.words[sentences], batch.words[last[row]])
        return vectors
