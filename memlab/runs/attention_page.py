"""The page of a run over stories, ``attention.html``: test questions, with the sentences that were read for them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from memlab.files import write_whole
from memlab.runs.tried_questions import Passage, TriedQuestion, passages
from memlab.trained.page import document, form, table

ROWS = 14
"""Sentences of a story that are shown at first; the whole of a longer one can be unfolded."""
MISSED = 0.0005
"""Least weight of empty cells that is told of: what is shown as 0.1%."""
VERDICTS = {True: "right", False: "mistake"}
SHADES = 10
"""How dark cells can be; ``page.css`` has them."""


def write_attention_page(questions: Sequence[TriedQuestion], target: Path, *, title: str, asked: int) -> str:
    """Write the page; what it holds and how large it is, in a line.

    Args:
        questions: to show, in this order.
        target: file to write.
        title: what was trained.
        asked: how many test questions there are.
    """
    tasks = list(dict.fromkeys(each.task for each in questions))
    wrong = sum(not each.is_right for each in questions)
    shown = f"{len(questions):,} of {asked:,} test questions, {wrong:,} of them mistakes"
    verdicts = {verdict: number for number, verdict in enumerate(VERDICTS.values())}
    choices = {"task": {task or "all": number for number, task in enumerate(tasks)}, "answer": verdicts}
    searched = "words of question or story"
    above = form(choices, "questions", searched=searched, mistakes=False) if len(questions) > 1 else ""
    cards = "".join(_card(each, place, tasks.index(each.task)) for place, each in enumerate(questions))
    body = document(title, _words(questions, shown), "Answers to test questions", above + cards, of="questions")
    write_whole(target, body)
    return f"what was read for {shown}: {target} ({target.stat().st_size / 2**20:.1f} MiB)"


def _words(questions: Sequence[TriedQuestion], shown: str) -> str:
    words = (
        f"{shown}: of each task the first of the data, mistakes before right answers. A question is asked after some"
        " sentences of a story, the oldest first, and may read no others."
    )
    if any(each.weights for each in questions):
        words += (
            " The network reads them hop after hop: in each it gives every sentence a weight, the darker the more, and"
            " what it has read goes into the next hop and, after the last, into the answer."
        )
    if any(weight >= MISSED for each in questions for weight in each.answer.nothing[: len(each.weights)]):
        words += " What is missing to 100% in a hop went to empty cells of the memory: so much of nothing was read."
    if any(each.supporting for each in questions):
        words += " A diamond marks the sentences that the answer follows from, as the data says."
    return words


def _card(question: TriedQuestion, place: int, task: int) -> str:
    read = question.answer
    kind = "" if question.is_right else ' class="mistake"'
    verdict = [*VERDICTS].index(question.is_right)
    told = ", ".join(filter(None, (question.task, question.source)))
    facts = [("answer", f"{_text(read.answer)} ({read.probability:.1%})"), ("truth", _text(question.truth))]
    if read.unknown:
        facts.append(("new words", ", ".join(map(_text, read.unknown))))
    return (
        f'<article{kind} data-0="{task}" data-1="{verdict}" tabindex="-1" aria-labelledby="h{place}">'
        f'<h3 id="h{place}">{VERDICTS[question.is_right].capitalize()}: {_text(read.question)}</h3>'
        f'<div class="parts"><div class="answer">{table("Answer", (), facts)}{_steps(question)}'
        f'<small class="source">{escape(told)}</small></div>'
        f"<div>{_story(question)}</div></div></article>"
    )


def _steps(question: TriedQuestion) -> str:
    """The sentence that weighs most in each hop, hops that agree together."""
    if not question.weights:
        return "<p>This network has no weights to show.</p>"
    tops = [
        max(range(len(hop)), key=lambda place: (hop[place], place)) if any(hop) else None for hop in question.weights
    ]
    lines, first = "", 0
    for top, group in groupby(tops):
        last = first + len(list(group))
        name = f"Hop {last}" if last == first + 1 else f"Hops {first + 1} to {last}"
        lines += f"<li>{name}: {_most(question, top, first, last)}</li>"
        first = last
    return f'<h4>Read most</h4><ol class="steps">{lines}</ol>'


def _heaviest(hop: Sequence[float]) -> int | None:
    """The place of the largest weight, of several the newest; None if nothing is read."""
    return max(range(len(hop)), key=lambda place: (hop[place], place)) if any(hop) else None


def _most(question: TriedQuestion, top: int | None, first: int, last: int) -> str:
    if top is None:
        return "nothing"
    weights = [hop[top] for hop in question.weights[first:last]]
    told = " to ".join(dict.fromkeys(map(_told_weight, (min(weights), max(weights)))))
    return f"{top + 1} {_text(question.answer.sentences[top])} ({told})"


def _story(question: TriedQuestion) -> str:
    read = question.answer
    shown = passages(question, most=ROWS)
    rows = [_row(question, each) for each in shown]
    heads = ("sentence", *(f"hop&nbsp;{hop + 1}" for hop in range(len(question.weights))))
    short = f'<div class="story" role="region" aria-label="Story" tabindex="0">{table("Story", heads, rows)}</div>'
    if not any(each.is_gap for each in shown):
        return short
    lines = "".join(f'<li class="source" dir="auto">{escape(sentence)}</li>' for sentence in read.sentences)
    return f"{short}<details><summary>All {len(read.sentences):,} sentences</summary><ol>{lines}</ol></details>"


def _row(question: TriedQuestion, passage: Passage) -> tuple[str, ...]:
    """Cells of a table, the first of which is the sentence."""
    weights = question.weights
    if passage.is_gap:
        return (f"<small>{_told_gap(question, passage)}</small>", *("" for _ in weights))
    sentence = escape(question.answer.sentences[passage.first])
    words = f'{passage.first + 1} <span class="source" dir="auto">{sentence}</span>'
    if passage.first in question.supporting:
        words = f'<span class="fact">{words} <small>\N{BLACK DIAMOND} the answer follows from it</small></span>'
    return (words, *(_shaded(hop[passage.first]) for hop in weights))


def _told_gap(question: TriedQuestion, gap: Passage) -> str:
    """What a gap leaves out, in words."""
    sentences = f"{gap.count:,} sentence{'s' * (gap.count > 1)}"
    if not question.weights:
        return sentences
    most = max(question.weight(place) for place in range(gap.first, gap.first + gap.count))
    return f"{sentences}, at most {_told_weight(most)} in any hop"


def _told_weight(weight: float) -> str:
    """A share of all weight; a score, as of hops without a softmax, where it cannot be one."""
    return f"{weight:.1%}" if 0 <= weight <= 1 else f"{weight:.2f}"


def _shaded(weight: float) -> str:
    shade = round(SHADES * min(max(weight, 0.0), 1.0))
    return f'<span class="weight w{shade}">{_told_weight(weight)}</span>'


def _text(text: str) -> str:
    """A text within another, whose direction is its own."""
    return f'<bdi class="source">{escape(text)}</bdi>'
