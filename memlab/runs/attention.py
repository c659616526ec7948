"""The picture of what a network over stories has read: sentences, each with its weight in every hop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from memlab.files import named_in_errors
from memlab.runs.tried_questions import TriedQuestion, passages

SENTENCES = 10
"""Of a longer story those that weigh most, or are supporting facts."""
LETTERS = 70
"""Of a sentence or question."""
NOTE = (
    "● supporting fact; cells: weight in each hop, the first one left;"
    " what is missing to 1 went to sentences not shown and to empty cells"
)
LINE, CELL, LEFT = 0.24, 0.07, 0.02
"""Height of a line in inches; width of a weight, and where the first begins, as shares of the picture."""


def draw_attention(questions: Sequence[TriedQuestion], target: Path, *, title: str) -> None:
    """Draw questions below one another, each with its sentences and, hop by hop, what these weighed.

    A weight is a cell that is the darker the more it is; supporting facts have a dot, and stand in bold.

    Args:
        questions: with weights.
        target: picture to write.
        title: what was trained.
    """
    blocks = [[each.first for each in passages(shown, most=SENTENCES) if not each.is_gap] for shown in questions]
    lines = sum(len(places) + 2 for places in blocks) + 1
    figure = Figure(figsize=(9, LINE * lines + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(lines, 0))
    axes.axis("off")
    axes.set_title(title, parse_math=False)
    line = 0
    for shown, places in zip(questions, blocks, strict=True):
        _draw_question(axes, shown, line=line)
        for row, place in enumerate(places, start=line + 1):
            _draw_sentence(axes, shown, place, line=row)
        line += len(places) + 2
    figure.text(0.01, -0.01, NOTE, fontsize=8, va="top")
    with named_in_errors(target):
        figure.savefig(target, dpi=130, bbox_inches="tight")


def _draw_question(axes: Axes, shown: TriedQuestion, *, line: int) -> None:
    answer = shown.answer
    verdict = "right" if shown.is_right else f"wrong, true is {shown.truth}"
    text = f"{_short(answer.question)}  {answer.answer}, {answer.probability:.0%} ({verdict})"
    _write(axes, LEFT, line, text, color="tab:green" if shown.is_right else "tab:red", weight="bold")


def _draw_sentence(axes: Axes, shown: TriedQuestion, place: int, *, line: int) -> None:
    weights = [hop[place] for hop in shown.answer.weights]
    shades = matplotlib.colormaps["Blues"]
    for hop, weight in enumerate(weights):
        share = min(max(weight, 0.0), 1.0)
        axes.add_patch(Rectangle((LEFT + hop * CELL, line), CELL, 1, facecolor=shades(0.8 * share), edgecolor="white"))
        _write(axes, LEFT + (hop + 0.2) * CELL, line, f"{weight:.2f}", color="white" if share > 0.6 else "black")
    is_fact = place in shown.supporting
    text = f"{'●' if is_fact else '  '} {place + 1} {_short(shown.answer.sentences[place])}"
    _write(axes, LEFT + (len(weights) + 0.2) * CELL, line, text, weight="bold" if is_fact else "normal")


def _write(axes: Axes, left: float, line: int, text: str, *, color: str = "black", weight: str = "normal") -> None:
    axes.text(left, line + 0.5, text, va="center", fontsize=9, color=color, weight=weight, parse_math=False)


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..."
