"""Stories as tensors: each distinct sentence once, and of every question which sentences it may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from memlab.data.stories import Question, Story, words
from memlab.data.vocabulary import PADDING, Vocabulary


@dataclass(frozen=True)
class StoryBatch:
    """S stories with Q questions. Memories are ragged: *cells* lie one after the other, those of a question together.

    A cell is a sentence that a question may read, one told before it; the same sentence is a cell of each question that
    may read it.
    """

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


class StoryEncoder:
    """Makes batches of stories by what training has seen: its words, its answers.

    Args:
        vocabulary: of sentences and questions.
        answers: that are told apart.
        most_cells: how many sentences a question may read, the newest; None for all.
    """

    def __init__(self, *, vocabulary: Vocabulary, answers: Sequence[str], most_cells: int | None) -> None:
        self.vocabulary, self.answers, self.most_cells = vocabulary, tuple(answers), most_cells
        self._answer_of = {answer: number for number, answer in enumerate(answers)}

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

    def batch(self, stories: Sequence[Story]) -> StoryBatch:
        """Put stories together."""
        places: dict[str, int] = {}
        sentences = [places.setdefault(text, len(places)) for story in stories for text in story.sentences]
        first, asked = 0, []
        for number, story in enumerate(stories):
            asked += [(number, first, question) for question in story.questions]
            first += len(story.sentences)
        told = [self._told(question) for _, _, question in asked]
        ends = [start + question.before for _, start, question in asked]
        spans = [range(end - count, end) for end, count in zip(ends, told, strict=True)]
        firsts = torch.tensor([0, *told]).cumsum(0).tolist()
        supports = [
            [firsts[number] + start + place - span.start for place in question.supporting if start + place in span]
            for number, ((_, start, question), span) in enumerate(zip(asked, spans, strict=True))
        ]
        lengths = torch.tensor([len(story.sentences) for story in stories])
        return StoryBatch(
            words=self._padded([self.vocabulary.numbers(words(text)) for text in places]),
            questions=self._padded([self.vocabulary.numbers(words(question.text)) for _, _, question in asked]),
            answers=torch.tensor([self._answer_of.get(question.answer, -1) for _, _, question in asked]),
            sentences=torch.tensor(sentences),
            story_of_sentence=torch.arange(len(stories)).repeat_interleave(lengths),
            story_of_question=torch.tensor([number for number, _, _ in asked]),
            told=torch.tensor(told),
            cells=torch.tensor([place for span in spans for place in span]),
            asker=torch.arange(len(asked)).repeat_interleave(torch.tensor(told)),
            age=torch.tensor([age for count in told for age in range(count - 1, -1, -1)]),
            supports=_padded(supports, padding=-1),
        )

    def _told(self, question: Question) -> int:
        return question.before if self.most_cells is None else min(question.before, self.most_cells)

    def _padded(self, rows: list[list[int]]) -> Tensor:
        return _padded(rows, padding=PADDING)

    def state(self) -> dict[str, Any]:
        """Plain values from which `from_state` makes it again."""
        return {"words": list(self.vocabulary.words), "answers": list(self.answers), "most_cells": self.most_cells}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> StoryEncoder:
        """As it was when its state was taken."""
        vocabulary = Vocabulary(tuple(state["words"]))
        return cls(vocabulary=vocabulary, answers=state["answers"], most_cells=state["most_cells"])


def _padded(rows: list[list[int]], *, padding: int) -> Tensor:
    """(n, longest) the rows, filled up at their ends."""
    longest = max(1, max(map(len, rows), default=1))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows], dtype=torch.int64)
