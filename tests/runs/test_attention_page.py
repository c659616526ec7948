"""The page of a run over stories tells of each question what was read for its answer, whatever texts hold."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from memlab.data.stories import Question, Story
from memlab.questions import MemN2N
from memlab.questions.answered import AnsweredQuestion
from memlab.questions.encoded import StoryEncoder
from memlab.runs.attention_page import ROWS, write_attention_page
from memlab.runs.tried_questions import Passage, TriedQuestion, choose_questions, last_questions, passages, tried
from memlab.training.story_module import Measured, measured
from tests.browser import LOW_CONTRAST, OVERFLOW, Opened, open_page

__all__ = ["open_page"]

STORY = (
    "John took the apple.",
    "John travelled to the kitchen.",
    "Mary went to the office.",
    "John dropped the apple.",
)


def question(
    weights: Sequence[Sequence[float]],
    *,
    sentences: Sequence[str] = STORY,
    text: str = "Where is the apple?",
    answer: str = "kitchen",
    truth: str = "kitchen",
    supporting: Sequence[int] = (1, 3),
    task: str = "qa2",
    unknown: Sequence[str] = (),
) -> TriedQuestion:
    """A question that is answered so."""
    told = AnsweredQuestion(tuple(sentences), text, answer, 0.875, tuple(map(tuple, weights)), tuple(unknown))
    return TriedQuestion(told, truth, frozenset(supporting), task, "qa2_test.txt:13")


APPLE = question([[0.125, 0.125, 0, 0.75], [0, 0.9375, 0.0625, 0], [0, 1, 0, 0]])
MISTAKE = question([[0.5, 0.25, 0.25, 0]], answer="office", task="qa3", supporting=())
BARE = question([], task="qa3")
HOSTILE = question(
    [[-0.5, 2.5]],
    sentences=["<img src=x onerror=alert(1)>", "הכלב רץ בגן"],
    text="</td></table><script>alert(2)</script>?",
    answer="<b>&amp;",
    supporting=[1],
    task='"><i>',
    unknown=["<u>"],
)
LONG = question([[1 / 320] * 320] * 8, sentences=[f"Mary went to office {n}." for n in range(320)], supporting=[5])
ALL = [APPLE, MISTAKE, BARE, HOSTILE, LONG]


class Words(HTMLParser):
    """What can be read, with a bar between elements, and the elements that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


def read(folder: Path, *questions: TriedQuestion) -> Words:
    """The page of some questions."""
    told = write_attention_page(questions, folder / "a.html", title="a <title>", asked=1000)
    assert told.startswith(f"what was read for {len(questions)} of 1,000 test questions, ")
    parser = Words()
    parser.feed((folder / "a.html").read_text(encoding="utf-8"))
    return parser


def test_a_stranger_sees_why_it_was_answered_so(tmp_path: Path) -> None:
    text = "|".join(read(tmp_path, APPLE).words)
    assert "1 of 1,000 test questions, 0 of them mistakes" in text
    assert "|Right: |Where is the apple?|" in text
    assert "answer|kitchen| (87.5%)|truth|kitchen|" in text
    assert "Hop 1: 4 |John dropped the apple.| (75.0%)|Hops 2 to 3: 2 |John travelled to the kitchen.|" in text
    assert "2 |John travelled to the kitchen.| |◆ the answer follows from it|12.5%|93.8%|100.0%|3 |Mary" in text
    assert "1 |John took the apple.|12.5%|0.0%|0.0%|" in text
    assert "qa2, qa2_test.txt:13" in text


def test_mistakes_and_networks_without_weights_are_told(tmp_path: Path) -> None:
    text = "|".join(read(tmp_path, MISTAKE, BARE).words)
    mistake, bare = text[text.index("Mistake: ") : text.index("Right: ")], text[text.index("Right: ") :]
    assert "answer|office| (87.5%)|truth|kitchen|" in mistake
    assert "follows from it" not in mistake
    assert "has no weights to show" in bare
    assert bare.count("%") == 1


def test_texts_are_no_html(tmp_path: Path) -> None:
    found = read(tmp_path, HOSTILE)
    assert {"img", "i", "b", "u"}.isdisjoint(found.tags)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    for text in ("<img src=x onerror=alert(1)>", "</td></table><script>alert(2)</script>?", "<b>&amp;", "הכלב רץ בגן"):
        assert text in found.words
    assert "-0.50" in found.words
    assert "2.50" in found.words


def test_of_a_long_story_what_matters_is_shown_and_the_rest_can_be_unfolded(tmp_path: Path) -> None:
    text = "|".join(read(tmp_path, LONG).words)
    story, whole = text.split("All 320 sentences")
    assert story.count("Mary went to office ") == ROWS + 1  # and the one that was read most
    assert "5 sentences, at most 0.3% in any hop|6 |Mary went to office 5.| |◆" in story
    assert whole.count("Mary went to office ") == 320


def test_last_hops_that_read_nothing_are_left_out(tmp_path: Path) -> None:
    text = "|".join(read(tmp_path, question([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])).words)
    assert "Hop 1: nothing|Hop 2: 4 " in text
    assert "Hop 3" not in text
    assert "hop\N{NO-BREAK SPACE}3" not in text


@pytest.mark.parametrize(("weights", "told"), [([[0, 0, 0.4, 0.5]], True), ([[0, 0, 0.5, 0.5], [0] * 4], False)])
def test_what_went_to_empty_cells_is_told(weights: Sequence[Sequence[float]], told: bool, tmp_path: Path) -> None:
    text = "|".join(read(tmp_path, question(weights)).words)
    assert ("went to empty cells of the memory" in text) is told


def test_gaps_are_between_what_is_named_and_what_weighs_most() -> None:
    weights = [0.0] * 20
    weights[7], weights[12] = 0.625, 0.375
    long = question([weights], sentences=[f"sentence {n}" for n in range(20)], supporting=[2, 3])
    found = [(each.first, each.count) for each in passages(long, most=4) if each.is_gap]
    assert found == [(0, 2), (4, 3), (8, 4), (13, 7)]
    assert [each.first for each in passages(long, most=1) if not each.is_gap] == [2, 3]
    assert passages(APPLE, most=4) == [Passage(place, 1, is_gap=False) for place in range(4)]


def found(right: Sequence[bool]) -> Measured:
    """Questions answered right or not."""
    count = len(right)
    none = torch.zeros(count)
    return Measured(
        torch.arange(count), none.long(), none, torch.tensor(right), none, torch.zeros(count, 0), none.bool()
    )


def test_questions_are_taken_of_each_task_in_turn_mistakes_first() -> None:
    tasks = ["a", "a", "a", "b", "b", "b", "c"]
    tested = found([True, False, True, True, True, False, True])
    assert choose_questions(tested, tasks, questions=3) == [1, 5, 6]
    assert choose_questions(tested, tasks, questions=5) == [1, 0, 5, 3, 6]
    assert choose_questions(tested, tasks, questions=100) == [1, 0, 2, 5, 3, 4, 6]


def test_of_each_task_in_turn_the_last_question_of_a_story() -> None:
    sizes = {"a": (2, 1, 3), "b": (2,), "c": (1, 1)}
    stories = [
        Story(("x",), (Question("y", "z", before=1),) * size, task=task) for task in sizes for size in sizes[task]
    ]
    assert last_questions(stories, questions=4) == [1, 7, 8, 2]
    assert last_questions(stories, questions=100) == [1, 7, 8, 2, 9, 5]


def test_what_is_shown_is_what_was_tested() -> None:
    torch.manual_seed(0)
    told = tuple(f"{who} went to the {where}." for who in ("mary", "john", "sandra") for where in ("hall", "garden"))
    asked = tuple(
        Question(f"Where is {who}?", where, before=before, supporting=(place,))
        for who, where, before, place in (("mary", "garden", 2, 1), ("john", "hall", 5, 2), ("mary", "garden", 6, 1))
    )
    stories = [Story(told, asked[:1], "f:1", "one"), Story(told, asked[1:], "f:9", "two")]
    encoder = StoryEncoder.of(stories, most_cells=4)
    network = MemN2N(
        words=len(encoder.vocabulary),
        answer_words=encoder.answer_words,
        most_cells=4,
        longest=8,
        size=5,
        hops=2,
        tying="adjacent",
        encoding="position",
        filled_up=False,
        random_noise=0.0,
        linear_start=0,
    ).eval()
    tested = measured(network, encoder.batch(stories))
    shown = tried(network, encoder, stories, [2, 0, 1])
    for number, each in zip((2, 0, 1), shown, strict=True):
        assert each.answer.question == asked[number].text
        assert each.is_right == bool(tested.right[number])
        assert each.answer.probability == pytest.approx(float(tested.probability[number]), abs=1e-6)
        assert all(sum(hop) == pytest.approx(1, abs=1e-5) for hop in each.weights)
        newest = asked[number].before
        assert each.answer.sentences == told[max(newest - 4, 0) : newest]
        named = {each.answer.sentences[place] for place in each.supporting}
        assert named == ({told[asked[number].supporting[0]]} if number != 2 else set())
    assert [each.task for each in shown] == ["two", "one", "two"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_in_a_browser(scheme: str, width: int, tmp_path: Path, open_page: Opened) -> None:
    write_attention_page(ALL, tmp_path / "a.html", title="t", asked=9)
    opened = open_page(tmp_path / "a.html", width=width, color_scheme=scheme)
    assert opened.evaluate(OVERFLOW) == 0
    assert opened.evaluate(LOW_CONTRAST) == []
    assert opened.get_by_role("status").inner_text() == "5 of 5 shown"
    opened.get_by_label("answer").select_option("mistake")
    assert opened.get_by_role("status").inner_text() == "2 of 5 shown"
    opened.get_by_label("task").select_option("qa3")
    assert opened.get_by_role("article").locator("h3").all_inner_texts() == ["Mistake: Where is the apple?"]
    opened.get_by_role("button", name="Show all").click()
    opened.get_by_label("words of question or story").fill("office 319")
    assert opened.get_by_role("status").inner_text() == "1 of 5 shown"
