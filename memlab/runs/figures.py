"""The pictures of a run and of a sweep, drawn with matplotlib's object interface: no display, no global state.

Names of data and of classes are drawn as they are: a dollar sign in them does not begin a formula.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.utils._pytree import tree_leaves

from memlab.data.objects import ObjectStore, raw_objects
from memlab.data.sequences import Sequences
from memlab.files import named_in_errors
from memlab.memory.evidence import Evidence
from memlab.memory.prediction import Prediction
from memlab.runs.results import CURVES, read_curves

SAME, OTHER = "tab:blue", "tab:orange"
COLUMNS = 9
"""So many objects beside a test object if several reads share them."""
LETTERS, LINES = 15, 11
"""Of a text, in the place of a picture."""


def draw_learning_curve(metrics_csv: Path, target: Path, *, title: str, best_epoch: int, note: str) -> None:
    """Train, validation and test accuracy by epoch, as far as they were measured (the thesis's Figure 4).

    Args:
        metrics_csv: the run's metrics.
        target: picture to write.
        title: what was trained.
        best_epoch: epoch, counted from 1, whose checkpoint was kept as the best.
        note: how the figures were measured, set small below the picture.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for (name, points), style in zip(read_curves(metrics_csv).items(), ["-", "--", "-"], strict=True):
        percent = [100 * value for value in points.values()]
        if percent:
            axes.plot(list(points), percent, style, marker="o", markersize=3, label=CURVES[name])
    axes.axvline(best_epoch, color="grey", linewidth=1, linestyle=":", label=f"best checkpoint (epoch {best_epoch})")
    axes.set(xlabel="epoch", ylabel="accuracy, %")
    axes.set_title(title, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.text(0.01, -0.01, note, fontsize=8, color="dimgrey", va="top", wrap=True)
    with named_in_errors(target):
        figure.savefig(target, dpi=130, bbox_inches="tight")


def draw_evidence(prediction: Prediction, store: ObjectStore, target: Path, *, title: str, objects: int) -> None:
    """Test objects, mistakes first, each with the support objects that weighed most in its answer.

    Half of the rows at most are mistakes, the surest first; then right answers, the least sure first. Of a memory that
    reads no objects there are the answers alone. With hops each read has columns of its own, as few as `COLUMNS` allow.

    Args:
        prediction: of all test objects.
        store: has the pictures.
        target: picture to write.
        title: what was trained.
        objects: test objects to show.
    """
    rows = choose_objects(prediction, objects=objects).tolist()
    columns = _columns(prediction)
    k = len(columns)
    shown = (
        "left: a test object and the answer; right: the training objects that weighed most,\n"
        "each with its class and its share of all weight (blue: of the true class, orange: of another)"
        if k
        else "test objects and the answers;\nthis memory reads no objects"
    )
    if prediction.earlier:
        shown += f"\nin each of {len(prediction.earlier)} hops, and in the read that answers"
    figure = Figure(figsize=(1.05 * k + 2.5, 1.28 * len(rows) + 1.0), layout="constrained")
    figure.suptitle(f"{title}\n{shown}", fontsize=9, parse_math=False)
    grid = figure.subplots(len(rows), k + 2, squeeze=False, width_ratios=[1, 1.25, *[1] * k])
    for axes_row, row in zip(grid, rows, strict=True):
        _draw_answer(axes_row[0], axes_row[1], prediction, row, store)
        truth = int(prediction.labels[row])
        for axes, (name, evidence, rank) in zip(axes_row[2:], columns, strict=True):
            support_id, label, weight = (column[row, rank].item() for column in evidence)
            if support_id < 0:  # an approximate search may have found fewer
                axes.axis("off")
                continue
            _draw_object(axes, store, int(support_id), frame=SAME if label == truth else OTHER)
            told = f"{store.class_names[int(label)]}: {weight:.1%}"
            axes.set_title(f"{name}\n{told}" if name else told, fontsize=8, pad=2, parse_math=False)
    with named_in_errors(target):
        figure.savefig(target, dpi=110, bbox_inches="tight")


class _Column(NamedTuple):
    """One of the objects that weighed most in a read."""

    name: str
    """Of the read, above its first column if there are several reads."""
    evidence: Evidence
    rank: int


def _columns(prediction: Prediction) -> list[_Column]:
    """What stands beside each test object: of each read those of its strongest that any object has."""
    reads = prediction.reads
    each = max(COLUMNS // len(reads), 1) if len(reads) > 1 else prediction.evidence.ids.shape[1]
    return [
        _Column(name if len(reads) > 1 and rank == 0 else "", evidence, rank)
        for name, evidence in reads.items()
        for rank in (evidence.ids >= 0).any(dim=0).nonzero().flatten()[:each].tolist()
    ]


def choose_objects(prediction: Prediction, *, objects: int) -> Tensor:
    """(objects,) which queries `draw_evidence` shows, in its order."""
    confidence, answer = prediction.log_probs.max(dim=-1)
    wrong = answer != prediction.labels
    mistakes = confidence.argsort(descending=True)[wrong[confidence.argsort(descending=True)]]
    right = confidence.argsort()[~wrong[confidence.argsort()]]
    shown = mistakes[: max(objects // 2, objects - len(right))]
    return torch.cat([shown, right[: objects - len(shown)]])


def _draw_answer(picture: Axes, words: Axes, prediction: Prediction, row: int, store: ObjectStore) -> None:
    truth, answer = int(prediction.labels[row]), int(prediction.log_probs[row].argmax())
    _draw_object(picture, store, int(prediction.ids[row]), frame="black")
    words.axis("off")
    verdict = "right" if truth == answer else "MISTAKE"
    sure = float(prediction.log_probs[row, answer].exp())
    text = f"{verdict}\nanswer {store.class_names[answer]} ({sure:.1%})\ntruth {store.class_names[truth]}"
    colour = "black" if truth == answer else "firebrick"
    words.text(0, 0.5, text, va="center", fontsize=8, color=colour, parse_math=False)


def _draw_object(axes: Axes, store: ObjectStore, row: int, *, frame: str) -> None:
    """Draw images as such, texts as words, sequences of measures as lines, all else as a matrix; of a tree one part.

    The last dimension of a matrix is across.
    """
    inputs = tree_leaves(store.inputs)[0]
    raw = raw_objects(inputs, torch.tensor([row]))[0].cpu().float().numpy()
    lowest = min(raw.min(), 0)
    if store.texts is not None:
        lines = textwrap.wrap(store.texts.text(torch.from_numpy(raw)), LETTERS, max_lines=LINES, placeholder=" …")
        axes.text(0.05, 0.95, "\n".join(lines), fontsize=4.5, va="top", transform=axes.transAxes, parse_math=False)
    elif isinstance(inputs, Sequences) and inputs.dtype is not torch.uint8:
        axes.plot(raw, linewidth=0.8)
    elif raw.ndim == 3 and len(raw) in (1, 3):
        axes.imshow((raw.transpose(1, 2, 0) - lowest) / max(raw.max() - lowest, 1), cmap="gray_r")
    else:
        across = raw.shape[-1] if raw.ndim else 1
        axes.imshow(raw.reshape(-1, across), cmap="gray_r", aspect="auto")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=2)


class HeatMap(NamedTuple):
    """One figure over the two parameters that a sweep varies."""

    title: str
    values: Mapping[tuple[str, str], float]
    """(row value, column value) to the figure; a cell may be missing."""
    text: Callable[[float], str]
    """How the figure of a cell is written."""


def draw_heat_maps(
    maps: Sequence[HeatMap],
    target: Path,
    *,
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
) -> None:
    """Several figures over the two parameters that a sweep varies, side by side.

    Args:
        maps: the figures.
        target: picture to write.
        rows: name of the parameter down the side, and its values in order.
        columns: name of the parameter along the bottom, and its values in order.
    """
    (row_name, row_values), (column_name, column_values) = rows, columns
    width, height = 1.1 * len(column_values) + 2.5, 0.8 * len(row_values) + 1.8
    figure = Figure(figsize=(width * len(maps), height), layout="constrained")
    for axes, (title, values, text) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        cells = np.array([[values.get((r, c), np.nan) for c in column_values] for r in row_values])
        image = axes.imshow(cells, cmap="viridis", aspect="auto")
        known = [*values.values()] or [np.nan]
        middle = (min(known) + max(known)) / 2
        for (i, j), value in np.ndenumerate(cells):
            said = "failed" if np.isnan(value) else text(value)
            axes.text(j, i, said, ha="center", va="center", color="white" if value < middle else "black")
        axes.set(title=title, xlabel=column_name, ylabel=row_name)
        axes.set_xticks(range(len(column_values)), column_values)
        axes.set_yticks(range(len(row_values)), row_values)
        figure.colorbar(image, ax=axes)
    with named_in_errors(target):
        figure.savefig(target, dpi=130)
