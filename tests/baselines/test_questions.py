"""Answers to questions without a network: by plain counts, and on stories that counts can answer or cannot."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from memlab.baselines.questions import AnswerPrior, NGrams, StoryBaseline, _asked
from memlab.data.stories import Question, Story, words

PLACES = ("garden", "hall", "kitchen")
PEOPLE = ("Mary", "John", "Ann")


def told(seed: int, task: str = "qa1") -> Story:
    """Everybody goes somewhere once: to follow from the sentence that shares the name, and from nothing else."""
    draw = random.Random(seed)
    where = {person: draw.choice(PLACES) for person in PEOPLE}
    sentences = tuple(f"{person} went to the {where[person]}." for person in PEOPLE)
    return Story(
        sentences, tuple(Question(f"Where is {person}?", where[person], 3) for person in PEOPLE), f"{seed}", task
    )


def by_plain_counts(train: list[Question], question: Question, least: int) -> str:
    text = words(question.text)
    for length in range(len(text), -1, -1):
        answers = [each.answer for each in train if words(each.text)[:length] == text[:length]]
        if len(answers) >= least or not length:
            return max(sorted(set(answers)), key=answers.count)
    raise AssertionError


@pytest.mark.parametrize("least", [1, 3, 12])
def test_prior_is_the_most_frequent_answer_to_questions_that_begin_alike(least: int) -> None:
    draw = random.Random(0)
    texts = ["Where is Mary?", "Where is John now?", "Where was Ann?", "Who is Mary?", "Where?"]

    def asked(count: int) -> list[Question]:
        return [Question(draw.choice(texts), draw.choice("abc"), 1) for _ in range(count)]

    train, test = asked(30), [*asked(10), Question("What is this?", "a", 1), Question("Where is nobody?", "a", 1)]
    answers = AnswerPrior(least=least).predict([Story(("It is.",), tuple(train))], [Story(("It is.",), tuple(test))])
    assert answers == [by_plain_counts(train, question, least) for question in test]


def test_ngrams_are_those_of_the_question_and_of_sentences_that_share_a_word_with_it() -> None:
    sentences = ("Mary went home.", "John slept.", "The milk is at home.", "Mary slept.")
    story = Story(sentences, (Question("Where is Mary?", "home", 3),))
    baseline = NGrams(ngrams=2, cost=1.0)
    pipeline = baseline._classifier()
    found = sorted(pipeline[0].build_analyzer()(_asked(story)[0]))
    expected: list[tuple[str, tuple[str, ...]]] = []
    for role, text in (("asked", "where is mary"), ("told", "mary went home"), ("told", "the milk is at home")):
        split = text.split()
        expected += [(role, (word,)) for word in split]
        expected += [(role, pair) for pair in pairwise(split)]
    assert found == sorted(expected)


def right(baseline: StoryBaseline, train: list[Story], test: list[Story]) -> float:
    answers = baseline.predict(train, test)
    true = [question.answer for story in test for question in story.questions]
    return sum(one == other for one, other in zip(answers, true, strict=True)) / len(true)


def test_ngrams_learn_what_follows_from_single_sentences_and_the_prior_does_not() -> None:
    train, test = [told(seed) for seed in range(100)], [told(seed) for seed in range(100, 150)]
    alone = [Story((each.sentences[0],), (Question("Where is Mary?", each.questions[0].answer, 1),)) for each in train]
    asked = [Story((each.sentences[0],), (Question("Where is Mary?", each.questions[0].answer, 1),)) for each in test]
    assert right(NGrams(ngrams=1, cost=1.0), alone, asked) == 1
    assert right(AnswerPrior(least=5), alone, asked) < 0.6
    assert right(NGrams(ngrams=3, cost=1.0), train, test) > right(AnswerPrior(least=5), train, test) + 0.1


@pytest.mark.parametrize("baseline", [AnswerPrior(least=1), NGrams(ngrams=2, cost=1.0)])
def test_each_task_is_learned_alone_and_answered_in_order(baseline: StoryBaseline) -> None:
    """The same question has one answer in one task and another in the other; one without training has that of all."""
    train = [
        Story(("It is.",), (Question("What?", answer, 1),), task=task)
        for task, answer in (("a", "one"), ("b", "two"), ("b", "two"))
    ]
    tasks = ["b", "a", "a", "c", "b"]
    test = [Story(("It is.",), (Question("What?", "", 1), Question("What?", "", 1)), task=task) for task in tasks]
    expected = {"a": "one", "b": "two", "c": "two"}
    assert baseline.predict(train, test) == [expected[task] for task in tasks for _ in range(2)]


@pytest.mark.parametrize(
    ("kind", "given", "wrong"),
    [
        (AnswerPrior, {"least": 0}, "least=0"),
        (NGrams, {"ngrams": 0, "cost": 1.0}, "ngrams=0"),
        (NGrams, {"ngrams": 1, "cost": 0.0}, "cost=0.0"),
    ],
)
def test_values_out_of_range_are_refused(kind: type[StoryBaseline], given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        kind(**given)


def test_titles_say_what_they_are() -> None:
    assert NGrams(ngrams=1, cost=1.0).title == "linear SVM on words of sentences that share a word with the question"
    assert "1- to 3-grams" in NGrams(ngrams=3, cost=1.0).title
    assert AnswerPrior(least=1).title == "most frequent answer to such a question"
