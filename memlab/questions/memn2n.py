"""End-to-end memory networks (Sukhbaatar et al. 2015; eqs. 6-10 of the thesis)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_choice, check_number, check_switch, check_whole_number
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

    In training W has a row of every word, in evaluation those of answers are compared.

    *Adjacent* tying: ``A^{h+1} = C^h``, ``B = A^1``, ``W^T = C^H``, hops + 1 matrices of word vectors in all.
    *Layerwise*: A, C, B, W and H, each the same in all hops.

    Args:
        words: V, numbers of words, those of answers among them.
        answer_words: (C,) the number of each answer.
        most_cells: the largest age counted; what is older has that.
        longest: words of the longest sentence.
        size: d of the vectors.
        hops: reads.
        tying: ``adjacent`` or ``layerwise``.
        encoding: of sentences, ``bag``, ``position`` or ``centred``.
        filled_up: whether memories have ``most_cells`` cells, of which those without a sentence have a score of 0 and
            nothing to be read, as in the code of the paper; a question can then read little of a story.
        random_noise: share of empty sentences that come into the memories in training, which shifts ages (RN).
        linear_start: share of the training, at its start, in which the softmax is left out of the hops (LS). In the
            paper that ends when validation gets no better; in its code, and here, at a fixed time, which comes later.

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
        longest: int,
        size: int,
        hops: int,
        tying: str,
        encoding: str,
        filled_up: bool,
        random_noise: float,
        linear_start: float,
    ) -> None:
        super().__init__()
        check_whole_number("size", size)
        self.hops = check_whole_number("hops", hops)
        self.is_adjacent = check_choice("tying", tying, TYINGS) == "adjacent"
        self.encoding = check_choice("encoding", encoding, ENCODINGS)
        self.random_noise = check_number("random_noise", random_noise, at_least=0, below=1)
        self.filled_up = check_switch("filled_up", filled_up)
        self._linear_start = check_number("linear_start", linear_start, at_least=0, below=1)
        self._longest = check_whole_number("longest", longest)
        self.is_linear: Tensor
        """Whether the softmax of the hops is left out; of the weights that are kept, as they were trained."""
        self.register_buffer("is_linear", torch.tensor(linear_start > 0))
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
        query, weights = self._follow(batch)
        return StoryRead(query @ self._answers[self.answer_words].mT, weights)

    def losses(self, batch: StoryBatch) -> Tensor:
        """(Q,) nats, of the true answer among all words; 0 of one that training has not seen."""
        query, _ = self._follow(batch)
        words = torch.where(batch.answers < 0, -1, self.answer_words[batch.answers])
        return F.cross_entropy(query @ self._answers.mT, words, ignore_index=-1, reduction="none")

    def _follow(self, batch: StoryBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(Q, d) u after the last hop; and (P,) p of each hop."""
        question = self.embeddings[:1] if self.is_adjacent else self.of_question[None]
        query = self._vectors(question, batch.questions)[:, 0]
        sentences = self._vectors(self.embeddings, batch.words)
        times = self.times.transpose(0, 1)
        held = (sentences[batch.sentences[batch.cells]] + times[self._ages(batch)]).unbind(1)
        empty = (self.times.shape[1] - batch.told).clamp(min=0) if self.filled_up else None
        is_linear, weights = bool(self.is_linear), []
        for hop in range(self.hops):
            keys, values = held[hop : hop + 2] if self.is_adjacent else held
            scores = (query[batch.asker] * keys).sum(1)
            weights.append(scores if is_linear else ragged_softmax(scores, batch.asker, len(batch), empty))
            read = ragged_sums(weights[-1], values, batch.asker, len(batch))
            query = (query if self.is_adjacent else query @ self.between.mT) + read
        return query, tuple(weights)

    def at_progress(self, progress: float) -> None:
        """Leave the softmax out at the start of the training."""
        self.is_linear.fill_(progress < self._linear_start)

    @property
    def _answers(self) -> Tensor:
        """(V, d) W."""
        return self.embeddings[-1] if self.is_adjacent else self.of_answer

    def _vectors(self, embeddings: Tensor, words: Tensor) -> Tensor:
        return sentence_vectors(embeddings, words, encoding=self.encoding, longest=self._longest)

    def _ages(self, batch: StoryBatch) -> Tensor:
        """(P,) ages, in training with empty sentences in between."""
        ages = batch.age
        if self.training and self.random_noise:
            empty = torch.rand(len(ages), device=ages.device) < self.random_noise
            before = empty.long().cumsum(0)  # from the oldest cell of the first question on
            last = batch.told.cumsum(0) - 1
            ages = ages + before[last][batch.asker] - before
        return ages.clamp(max=self.times.shape[1] - 1)
