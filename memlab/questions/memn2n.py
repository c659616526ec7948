"""End-to-end memory networks (Sukhbaatar et al. 2015; eqs. 6-10 of the thesis)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from memlab.checks import check_choice, check_number, check_whole_number
from memlab.functional.ragged_read import ragged_softmax, ragged_sums
from memlab.questions.batch import StoryBatch
from memlab.questions.network import StoryNetwork, StoryRead
from memlab.questions.sentences import ENCODINGS, sentence_vectors

TYINGS = ("adjacent", "layerwise")
DEVIATION = 0.1
"""Of all weights at the start, as in the paper."""


class MemN2N(StoryNetwork):
    """A question reads the sentences of its story several times, each read with what the one before has found.

    ``u^1 = B q``, in each hop ``p = softmax(u^T m_i)``, ``o = sum_i p_i c_i``, ``u' = u + o`` (layerwise: ``H u + o``),
    with ``m_i = A x_i + T_A(age_i)`` and ``c_i = C x_i + T_C(age_i)``; the answer is ``softmax(W u)``.

    *Adjacent* tying: ``A^{h+1} = C^h``, ``B = A^1``, ``W^T = C^H``, hops + 1 matrices of word vectors in all.
    *Layerwise*: A, C, B, W and H, each the same in all hops.

    Args:
        words: V, numbers of words, those of answers among them.
        answer_words: (C,) the number of each answer.
        most_cells: the largest age counted; what is older has that.
        size: d of the vectors.
        hops: reads.
        tying: ``adjacent`` or ``layerwise``.
        encoding: of sentences, ``bag`` or ``position``.
        random_noise: share of empty sentences that come into the memories in training, which shifts ages (RN).
        linear_start: by what the learning rate is multiplied while the softmax is left out of the hops, which it is
            until validation gets no better for the first time (LS); None to start with the softmax.

    Raises:
        ValueError: for a value out of range.
    """

    answer_words: Tensor

    def __init__(
        self,
        *,
        words: int,
        answer_words: Sequence[int],
        most_cells: int,
        size: int,
        hops: int,
        tying: str,
        encoding: str,
        random_noise: float,
        linear_start: float | None,
    ) -> None:
        super().__init__()
        check_whole_number("size", size)
        self.hops = check_whole_number("hops", hops)
        self.is_adjacent = check_choice("tying", tying, TYINGS) == "adjacent"
        self.encoding = check_choice("encoding", encoding, ENCODINGS)
        self.random_noise = check_number("random_noise", random_noise, at_least=0, below=1)
        if linear_start is not None:
            check_number("linear_start", linear_start, above=0)
        self._linear_rate = linear_start
        self._best_linear = math.inf
        self.is_linear = linear_start is not None
        """Whether the softmax of the hops is left out."""
        matrices = hops + 1 if self.is_adjacent else 2
        self.embeddings = nn.Parameter(torch.empty(matrices, words, size))
        self.times = nn.Parameter(torch.empty(matrices, most_cells, size))
        self.register_buffer("answer_words", torch.tensor(answer_words), persistent=False)
        if not self.is_adjacent:
            self.of_question = nn.Parameter(torch.empty(words, size))
            self.of_answer = nn.Parameter(torch.empty(words, size))
            self.between = nn.Parameter(torch.empty(size, size))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=DEVIATION)

    def read(self, batch: StoryBatch) -> StoryRead:
        """See `StoryNetwork.read`."""
        question = self.embeddings[:1] if self.is_adjacent else self.of_question[None]
        query = sentence_vectors(question, batch.questions, encoding=self.encoding)[:, 0]
        sentences = sentence_vectors(self.embeddings, batch.words, encoding=self.encoding)
        times = self.times.transpose(0, 1)
        held = (sentences[batch.sentences[batch.cells]] + times[self._ages(batch)]).unbind(1)
        weights = []
        for hop in range(self.hops):
            keys, values = held[hop : hop + 2] if self.is_adjacent else held
            scores = (query[batch.asker] * keys).sum(1)
            weights.append(scores if self.is_linear else ragged_softmax(scores, batch.asker, len(batch)))
            read = ragged_sums(weights[-1], values, batch.asker, len(batch))
            query = (query if self.is_adjacent else query @ self.between.mT) + read
        answer = self.embeddings[-1] if self.is_adjacent else self.of_answer
        return StoryRead(query @ answer[self.answer_words].mT, tuple(weights))

    @property
    def rate_factor(self) -> float:
        """See `StoryNetwork.rate_factor`."""
        return self._linear_rate if self.is_linear and self._linear_rate is not None else 1.0

    def after_validation(self, nll: float) -> None:
        """End the linear start if it is no better than before."""
        self.is_linear = self.is_linear and nll < self._best_linear
        self._best_linear = min(self._best_linear, nll)

    def progress(self) -> dict[str, Any]:
        """See `StoryNetwork.progress`."""
        return {"is_linear": self.is_linear, "best_linear": self._best_linear}

    def restore(self, progress: dict[str, Any]) -> None:
        """See `StoryNetwork.restore`."""
        self.is_linear, self._best_linear = progress["is_linear"], progress["best_linear"]

    def _ages(self, batch: StoryBatch) -> Tensor:
        """(P,) ages, in training with empty sentences in between."""
        ages = batch.age
        if self.training and self.random_noise:
            empty = torch.rand(len(ages), device=ages.device) < self.random_noise
            before = empty.long().cumsum(0)  # from the oldest cell of the first question on
            last = batch.told.cumsum(0) - 1
            ages = ages + before[last][batch.asker] - before
        return ages.clamp(max=self.times.shape[1] - 1)
