"""The picture of what was read: which sentences of a long story it has, and that it is drawn whatever they say."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image

from memlab.questions.answered import AnsweredQuestion
from memlab.runs.attention import LETTERS, SENTENCES, draw_attention
from memlab.runs.tried_questions import TriedQuestion, passages


def shown(
    *, sentences: list[str], weights: list[list[float]], supporting: set[int], answer: str = "hall"
) -> TriedQuestion:
    hops = tuple(map(tuple, weights))
    read = AnsweredQuestion(tuple(sentences), "Where is $Mary?", answer, 0.5, hops, ())
    return TriedQuestion(read, "hall", frozenset(supporting), "", "")


def places(question: TriedQuestion) -> list[int]:
    return [each.first for each in passages(question, most=SENTENCES) if not each.is_gap]


def test_of_a_long_story_what_weighs_most_and_the_supporting_facts() -> None:
    weights = [[place / 300 for place in range(300)], [0.0] * 300]
    weights[1][7] = 1.0
    found = places(shown(sentences=["Mary went."] * 300, weights=weights, supporting={3, 11}))
    assert found == [3, 7, 11, *range(293, 300)]
    assert len(found) == SENTENCES
    assert places(shown(sentences=["a", "b"], weights=[[0.1, 0.9]], supporting=set())) == [0, 1]


def test_any_text_is_drawn(tmp_path: Path) -> None:
    texts = ["Costs $5 or $6_x^2.", "<b>Mary</b> & co.", "w" * 2 * LETTERS, "שלום"]
    questions = [
        shown(sentences=texts, weights=[[-0.5, 2.0, 0.0, 1.0]] * hops, supporting={1}, answer=answer)
        for hops, answer in ((1, "hall"), (8, "garden"))
    ]
    draw_attention(questions, tmp_path / "attention.png", title="a $ b")
    assert matplotlib.image.imread(tmp_path / "attention.png").std() > 0.05
