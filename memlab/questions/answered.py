"""A question over a story with its answer, and what was read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memlab.data.stories import Question, Story, words
from memlab.questions.encoded import StoryEncoder
from memlab.questions.network import StoryNetwork


@dataclass(frozen=True)
class AnsweredQuestion:
    """What a network answers to a question, and why."""

    sentences: tuple[str, ...]
    """Those that it may read, the oldest first."""
    question: str
    answer: str
    probability: float
    """Of the answer, from 0 to 1; of a network that is taught by a margin no more than a ranking."""
    weights: tuple[tuple[float, ...], ...]
    """Of each hop that of each sentence; nothing of a network that has none."""
    unknown: tuple[str, ...]
    """Words of the question and of these sentences that training has never seen."""

    @property
    def nothing(self) -> tuple[float, ...]:
        """What the weights of each hop lack to 1: what empty cells weigh. 0 of scores without a softmax."""
        return tuple(max(1 - sum(hop), 0.0) if min(hop) >= 0 else 0.0 for hop in self.weights)


def answered(network: StoryNetwork, encoder: StoryEncoder, sentences: Sequence[str], question: str) -> AnsweredQuestion:
    """Ask a network about a story.

    Args:
        network: in evaluation.
        encoder: that it was trained with.
        sentences: of the story, the oldest first; at least one, each with a word.
        question: with a word.
    """
    story = Story(tuple(sentences), (Question(question, "", before=len(sentences)),))
    batch = encoder.batch([story]).to(next(network.parameters()).device)
    read = network.read(batch)
    probability, best = read.scores.softmax(1).max(1)
    may_read = tuple(sentences[-len(batch.cells) :])
    known = encoder.vocabulary
    texts = [word for text in (question, *may_read) for word in words(text)]
    return AnsweredQuestion(
        sentences=may_read,
        question=question,
        answer=encoder.answers[int(best)],
        probability=float(probability),
        weights=tuple(tuple(_numbers(each)) for each in read.weights),
        unknown=tuple(dict.fromkeys(word for word in texts if word not in known)),
    )


def _numbers(weights: Tensor) -> list[float]:
    found: list[float] = weights.tolist()
    return found
