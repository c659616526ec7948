"""Answers to questions over a story without a network: by the question alone, and by counts of words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC

from memlab.checks import check_number, check_whole_number
from memlab.data.stories import Question, Story, words

Words = tuple[str, ...]


class Asked(NamedTuple):
    """A question with what it may read."""

    question: Question
    told: tuple[str, ...]


class StoryBaseline:
    """Answers to questions over a story, to set beside those of a network.

    Each task is learned alone, as far as stories tell theirs; a task without a training story is answered by what is
    learned of all.
    """

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        raise NotImplementedError

    def predict(self, train: Sequence[Story], test: Sequence[Story]) -> list[str]:
        """An answer to each question of the test stories, story after story.

        Args:
            train: stories to learn from, with one question at least.
            test: stories to be asked about.
        """
        tasks = {story.task for story in train}
        found: dict[tuple[int, int], str] = {}
        for task in {story.task for story in test}:
            learned = [each for story in train if story.task == task or task not in tasks for each in _asked(story)]
            places = [(place, each) for place, story in enumerate(test) if story.task == task for each in _asked(story)]
            answers = self.answers(learned, [each for _, each in places])
            numbers: Counter[int] = Counter()
            for (place, _), answer in zip(places, answers, strict=True):
                found[place, numbers[place]] = answer
                numbers[place] += 1
        return [found[key] for key in sorted(found)]

    def answers(self, train: Sequence[Asked], test: Sequence[Asked]) -> list[str]:
        """An answer to each test question of one task."""
        raise NotImplementedError


class AnswerPrior(StoryBaseline):
    """The most frequent training answer to questions that begin as this one: without a look at the story.

    Args:
        least: training questions that must begin with the same words; as many of the first words are taken as have
            so many, down to none.

    Raises:
        ValueError: if ``least`` is no whole number of at least 1.
    """

    def __init__(self, *, least: int) -> None:
        self.least = check_whole_number("least", least)

    @property
    def title(self) -> str:
        """See `StoryBaseline.title`."""
        return "most frequent answer to such a question"

    def answers(self, train: Sequence[Asked], test: Sequence[Asked]) -> list[str]:
        """See `StoryBaseline.answers`; of answers as frequent the first in the alphabet."""
        counts: defaultdict[Words, Counter[str]] = defaultdict(Counter)
        for question, _ in train:
            for beginning in _beginnings(question):
                counts[beginning][question.answer] += 1
        best = {
            beginning: min(count, key=lambda answer: (-count[answer], answer))
            for beginning, count in counts.items()
            if count.total() >= self.least or not beginning
        }
        return [next(best[each] for each in _beginnings(question) if each in best) for question, _ in test]


class NGrams(StoryBaseline):
    """A linear support vector machine on counts of n-grams (Weston et al. 2015, section 5).

    Features are the n-grams of all sentences told that share a word with the question and, apart, what the paper leaves
    out, those of the question; each count is divided by the largest of training.

    Args:
        ngrams: words of the longest; 1 for bags of words.
        cost: C of the machine, of training errors against the size of its weights.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, ngrams: int, cost: float) -> None:
        self.ngrams = check_whole_number("ngrams", ngrams)
        self.cost = check_number("cost", cost, above=0)

    @property
    def title(self) -> str:
        """See `StoryBaseline.title`."""
        kind = "words" if self.ngrams == 1 else f"1- to {self.ngrams}-grams"
        return f"linear SVM on {kind} of sentences that share a word with the question"

    def answers(self, train: Sequence[Asked], test: Sequence[Asked]) -> list[str]:
        """See `StoryBaseline.answers`."""
        known = [question.answer for question, _ in train]
        if len(set(known)) == 1:
            return [known[0]] * len(test)
        answers: list[str] = self._classifier().fit(train, known).predict(test).tolist()
        return answers

    def _classifier(self) -> Pipeline:
        return make_pipeline(
            CountVectorizer(analyzer=self._features), MaxAbsScaler(), LinearSVC(C=self.cost, random_state=0)
        )

    def _features(self, asked: Asked) -> Iterator[tuple[str, Words]]:
        """What is counted."""
        question = words(asked.question.text)
        yield from (("asked", run) for run in self._runs(question))
        for told in map(words, asked.told):
            if not set(question).isdisjoint(told):
                yield from (("told", run) for run in self._runs(told))

    def _runs(self, text: list[str]) -> Iterator[Words]:
        for length in range(1, self.ngrams + 1):
            yield from (tuple(text[start : start + length]) for start in range(len(text) - length + 1))


def _asked(story: Story) -> list[Asked]:
    return [Asked(question, story.sentences[: question.before]) for question in story.questions]


def _beginnings(question: Question) -> Iterator[Words]:
    """From the whole question to none of it."""
    text = words(question.text)
    return (tuple(text[:count]) for count in range(len(text), -1, -1))
