"""Stories as numbers, made once, from which batches are put together at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlab.data.stories import Story, words
from memlab.data.vocabulary import PADDING, Vocabulary
from memlab.questions.batch import StoryBatch

Whole = NDArray[np.int64]


class StoryEncoder:
    """Encodes stories by what training has seen: its words, its answers.

    Args:
        vocabulary: of sentences and questions.
        answers: that are told apart.
        most_cells: how many sentences a question may read, the newest; None for all.
    """

    def __init__(self, *, vocabulary: Vocabulary, answers: Sequence[str], most_cells: int | None) -> None:
        self.vocabulary, self.answers, self.most_cells = vocabulary, tuple(answers), most_cells

    @classmethod
    def of(cls, stories: Sequence[Story], *, most_cells: int | None) -> StoryEncoder:
        """By the words and answers of training stories."""
        texts = [text for story in stories for text in (*story.sentences, *(each.text for each in story.questions))]
        answers = sorted({question.answer for story in stories for question in story.questions})
        vocabulary = Vocabulary.of([*map(words, texts), answers])  # an answer of several words is a word of its own
        return cls(vocabulary=vocabulary, answers=answers, most_cells=most_cells)

    @property
    def answer_words(self) -> list[int]:
        """(C,) the number that each answer has as a word."""
        return self.vocabulary.numbers(self.answers)

    def encoded(self, stories: Sequence[Story]) -> EncodedStories:
        """Encode stories."""
        return EncodedStories(stories, vocabulary=self.vocabulary, answers=self.answers, most_cells=self.most_cells)

    def batch(self, stories: Sequence[Story]) -> StoryBatch:
        """All of some stories, put together."""
        return self.encoded(stories).batch(np.arange(len(stories)))

    def state(self) -> dict[str, Any]:
        """Plain values from which `from_state` makes it again."""
        return {"words": list(self.vocabulary.words), "answers": list(self.answers), "most_cells": self.most_cells}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> StoryEncoder:
        """As it was when its state was taken."""
        vocabulary = Vocabulary(tuple(state["words"]))
        return cls(vocabulary=vocabulary, answers=state["answers"], most_cells=state["most_cells"])


class EncodedStories:
    """Stories as flat arrays; see `StoryEncoder` for what is told apart.

    Args:
        stories: each with a question or more.
        vocabulary: of sentences and questions.
        answers: that are told apart.
        most_cells: how many sentences a question may read, the newest; None for all.
    """

    def __init__(
        self, stories: Sequence[Story], *, vocabulary: Vocabulary, answers: Sequence[str], most_cells: int | None
    ) -> None:
        asked = [question for story in stories for question in story.questions]
        answer_of = {answer: number for number, answer in enumerate(answers)}
        self.answers: Whole = _whole([answer_of.get(question.answer, -1) for question in asked])
        """(N,) number of the answer of each question; -1 for one that is not told apart."""
        self.tasks = [story.task for story in stories for _ in story.questions]
        """(N,) what kind of story each question is about."""
        self._before = _whole([question.before for question in asked])
        self._told = self._before if most_cells is None else self._before.clip(max=most_cells)
        self._sentences = _Ragged.of([len(story.sentences) for story in stories])
        self._questions = _Ragged.of([len(story.questions) for story in stories])
        self._texts = _Texts([text for story in stories for text in story.sentences], vocabulary)
        self._asked_texts = _Texts([question.text for question in asked], vocabulary)
        self._supports = _rectangle([question.supporting for question in asked], filled_by=-1)

    def __len__(self) -> int:
        """How many stories there are."""
        return len(self._sentences.lengths)

    @property
    def questions_of_stories(self) -> Whole:
        """How many each story has."""
        return self._questions.lengths

    @property
    def longest(self) -> int:
        """Words of the longest sentence or question."""
        return max(self._texts.longest, self._asked_texts.longest)

    @property
    def most_told(self) -> int:
        """Sentences that a question may read, at most."""
        return int(self._told.max(initial=1))

    def batch(self, stories: Whole) -> StoryBatch:
        """Put some stories together, by their numbers."""
        told_of, asked_of = self._sentences.lengths[stories], self._questions.lengths[stories]
        questions = self._questions.places(stories)
        words, sentences = self._texts.rows(self._sentences.places(stories))
        asked, text_of_question = self._asked_texts.rows(questions)
        story_of_question = _repeated(np.arange(len(stories)), asked_of)
        ends = (told_of.cumsum() - told_of)[story_of_question] + self._before[questions]
        told = self._told[questions]
        asker = _repeated(np.arange(len(questions)), told)
        behind = _repeated(told.cumsum(), told) - np.arange(len(asker)) - 1
        supports = self._supports[questions]
        first_read = (self._before[questions] - told)[:, None]
        cells_of_supports = (told.cumsum() - told)[:, None] + supports - first_read
        return StoryBatch(
            ids=_tensor(questions),
            words=_tensor(words),
            questions=_tensor(asked[text_of_question]),
            answers=_tensor(self.answers[questions]),
            sentences=_tensor(sentences),
            story_of_sentence=_tensor(_repeated(np.arange(len(stories)), told_of)),
            story_of_question=_tensor(story_of_question),
            told=_tensor(told),
            cells=_tensor(_repeated(ends, told) - behind - 1),
            asker=_tensor(asker),
            age=_tensor(behind),
            supports=_tensor(_to_the_left(np.where(supports >= first_read.clip(min=0), cells_of_supports, -1))),
        )


class _Ragged:
    """Rows of an array that belong to stories, those of one after those of another.

    Args:
        lengths: (S,) how many belong to each story.
    """

    def __init__(self, lengths: Whole) -> None:
        self.lengths = lengths
        self._firsts = lengths.cumsum() - lengths

    @classmethod
    def of(cls, lengths: Sequence[int]) -> _Ragged:
        return cls(_whole(lengths))

    def places(self, stories: Whole) -> Whole:
        """The rows of some stories, one story after the other."""
        lengths = self.lengths[stories]
        within = np.arange(lengths.sum()) - _repeated(lengths.cumsum() - lengths, lengths)
        return _repeated(self._firsts[stories], lengths) + within


class _Texts:
    """Texts as the numbers of their words, each distinct one kept once."""

    def __init__(self, texts: Sequence[str], vocabulary: Vocabulary) -> None:
        places: dict[str, int] = {}
        self._text_of = _whole([places.setdefault(text, len(places)) for text in texts])
        self._words = _rectangle([vocabulary.numbers(words(text)) for text in places], filled_by=PADDING)
        self._lengths = (self._words != PADDING).sum(1)
        self.longest = int(self._lengths.max(initial=1))

    def rows(self, places: Whole) -> tuple[Whole, Whole]:
        """(U, J) words of the distinct texts at some places, and which of these each place has."""
        distinct, which = np.unique(self._text_of[places], return_inverse=True)
        return self._words[distinct, : self._lengths[distinct].max(initial=1)], which


def _whole(numbers: Sequence[int]) -> Whole:
    return np.array(numbers, dtype=np.int64)


def _rectangle(rows: Sequence[Sequence[int]], *, filled_by: int) -> Whole:
    """(n, longest) the rows, filled up at their ends."""
    lengths = _whole([len(row) for row in rows])
    made = np.full((len(rows), max(int(lengths.max(initial=0)), 1)), filled_by, dtype=np.int64)
    made[np.arange(made.shape[1]) < lengths[:, None]] = [number for row in rows for number in row]
    return made


def _to_the_left(rows: Whole) -> Whole:
    """Rows with their -1 at the ends; what else is in them keeps its order."""
    order = (rows < 0).argsort(axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)


def _repeated(values: Whole, times: Whole) -> Whole:
    return np.repeat(values, times)


_tensor: Callable[[Whole], Tensor] = torch.from_numpy
