"""Test questions with what was read for their answers: which are shown, and of long stories which sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import torch

from memlab.data.stories import Story
from memlab.questions import StoryNetwork
from memlab.questions.answered import AnsweredQuestion, answered
from memlab.questions.encoded import StoryEncoder
from memlab.training.story_module import Measured


@dataclass(frozen=True)
class TriedQuestion:
    """A question of the data with what a network answers."""

    answer: AnsweredQuestion
    truth: str
    supporting: frozenset[int]
    """Places of the sentences that the answer follows from, as far as the data tells."""
    task: str
    source: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is the true one."""
        return self.answer.answer == self.truth

    @property
    def weights(self) -> tuple[tuple[float, ...], ...]:
        """Of each hop those of the sentences; without the last hops if these read nothing."""
        reading = [number for number, hop in enumerate(self.answer.weights, 1) if any(hop)]
        return self.answer.weights[: max(reading, default=0)]

    def weight(self, place: int) -> float:
        """The largest that a sentence has in any hop; 0 if there are none."""
        return max((hop[place] for hop in self.weights), default=0.0)


def tried(
    network: StoryNetwork, encoder: StoryEncoder, stories: Sequence[Story], numbers: Sequence[int]
) -> list[TriedQuestion]:
    """Answer questions of the data anew, to tell what was read for each.

    Args:
        network: in evaluation.
        encoder: that it was trained with.
        stories: that are asked about.
        numbers: of the questions, which are counted story after story.
    """
    asked = [(story, question) for story in stories for question in story.questions]
    found = []
    for story, question in (asked[number] for number in numbers):
        with torch.no_grad():
            answer = answered(network, encoder, story.sentences[: question.before], question.text)
        first = question.before - len(answer.sentences)
        supporting = frozenset(place - first for place in question.supporting if place >= first)
        found.append(TriedQuestion(answer, question.answer, supporting, story.task, story.source))
    return found


def last_questions(stories: Sequence[Story], *, questions: int) -> list[int]:
    """The last questions of the first stories of each task in turn: those that may read most.

    Args:
        stories: whose questions are counted story after story.
        questions: to take; all last ones if there are fewer.

    Returns:
        Their numbers.
    """
    before: Counter[str] = Counter()
    turns, number = [], -1
    for story in stories:
        number += len(story.questions)
        turns.append((before[story.task], number))
        before[story.task] += 1
    return [number for _, number in sorted(turns)[:questions]]


def choose_questions(tested: Measured, tasks: Sequence[str], *, questions: int) -> list[int]:
    """Which test questions are shown: as many of each task, mistakes and right answers in turn, the first of the data.

    Args:
        tested: what was answered.
        tasks: of each question by its id.
        questions: to show; all if there are fewer.

    Returns:
        Their ids, task after task, of each the mistakes first.
    """
    right = tested.right.tolist()
    kinds = [
        [[row for row in rows.tolist() if right[row] == kind] for kind in (False, True)]
        for rows in tested.by_task(tasks).values()
    ]
    chosen = set(_in_turn([_in_turn(each) for each in kinds])[:questions])
    return [int(tested.ids[row]) for row in chain(*chain(*kinds)) if row in chosen]


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    """The first of each, then the second of each, as long as there are any."""
    return [each for turn in zip_longest(*lists) for each in turn if each is not None]


@dataclass(frozen=True)
class Passage:
    """Sentences of a story one after the other: a single one that is shown, or a gap of some that are not."""

    first: int
    count: int
    is_gap: bool


def passages(question: TriedQuestion, *, most: int) -> list[Passage]:
    """How a story is shown: whole if it is short, or else what the answer follows from and what weighs most.

    Args:
        question: about it.
        most: sentences to show, if the data does not name more.
    """
    count = len(question.answer.sentences)
    others = sorted(set(range(count)) - question.supporting, key=lambda place: (-question.weight(place), -place))
    kept = question.supporting | set(others[: max(most - len(question.supporting), 0)])
    found: list[Passage] = []
    for place in range(count):
        if place in kept:
            found.append(Passage(place, 1, is_gap=False))
        elif found and found[-1].is_gap:
            found[-1] = Passage(found[-1].first, found[-1].count + 1, is_gap=True)
        else:
            found.append(Passage(place, 1, is_gap=True))
    return found
