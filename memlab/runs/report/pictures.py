"""The pictures of a report: accuracy by epoch, against M and against time, and confusion matrices."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from memlab.runs.confusion import NUMBERED_CLASSES, draw_shares
from memlab.runs.report.collect import Row
from memlab.runs.results import CURVES, read_confusion

COLUMNS = 3


def draw_curves(rows: Sequence[Row], target: Path) -> None:
    """Train, validation and test accuracy by epoch, a panel for each row (the thesis's Figure 4); means over seeds."""
    figure, panels = _panels(len(rows))
    for axes, row in zip(panels, rows, strict=False):
        curves = [run.curves for run in row.runs]
        for (name, label), style in zip(CURVES.items(), ["-", "--", "-"], strict=True):
            epochs = sorted(set.intersection(*(set(curve[name]) for curve in curves)))
            percent = [100 * mean(curve[name][epoch] for curve in curves) for epoch in epochs]
            axes.plot(epochs, percent, style, marker="o", markersize=3, label=label)
        axes.set_title(_wrapped(row), fontsize=8)
        axes.set(xlabel="epoch", ylabel="accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=7)
    figure.savefig(target, dpi=130)


def draw_against_support(rows: Sequence[Row], target: Path) -> None:
    """Test accuracy against M, a panel for each data set, a line for encoder and memory, bars of one deviation."""
    sets = list(dict.fromkeys(row.data for row in rows))
    figure, panels = _panels(len(sets))
    for axes, data in zip(panels, sets, strict=False):
        of_data = [row for row in rows if row.data == data and row.support]
        for key, memory in dict.fromkeys((row.key, row.memory) for row in of_data):
            line = sorted((r for r in of_data if (r.key, r.memory) == (key, memory)), key=lambda row: row.support or 0)
            axes.errorbar(
                [float(row.support or 0) for row in line],
                [100 * row.mean for row in line],
                [100 * (row.deviation or 0) for row in line],
                marker="o",
                markersize=4,
                capsize=3,
                label=f"{key}, {memory}",
            )
        axes.set(title=data, xlabel="M, support objects", ylabel="test accuracy, %", xscale="log")
        sizes = sorted({row.support for row in of_data if row.support})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(target, dpi=130)


def draw_against_time(rows: Sequence[Row], target: Path) -> None:
    """Test accuracy against the seconds of training, a panel for each data set, a point for each row."""
    sets = list(dict.fromkeys(row.data for row in rows))
    figure, panels = _panels(len(sets), width=8)
    for axes, data in zip(panels, sets, strict=False):
        for number, row in enumerate(row for row in rows if row.data == data):
            axes.errorbar(
                [row.seconds or 0],
                [100 * row.mean],
                [100 * (row.deviation or 0)],
                color=f"C{number % 10}",
                marker="osD^v"[number // 10 % 5],
                capsize=3,
                linestyle="",
                label=row.title,
            )
        axes.set(title=data, xlabel="training time, s", ylabel="test accuracy, %", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    figure.savefig(target, dpi=130)


def draw_confusion(rows: Sequence[Row], target: Path) -> None:
    """Confusion matrices, a panel for each row: shares of each true class, over all seeds together."""
    figure, panels = _panels(len(rows))
    for axes, row in zip(panels, rows, strict=False):
        draw_shares(axes, *_confusion(row), named=NUMBERED_CLASSES, font_size=5)
        axes.set_title(_wrapped(row), fontsize=8)
    figure.savefig(target, dpi=130)


def _confusion(row: Row) -> tuple[list[str], NDArray[np.int64]]:
    found = [read_confusion(run.folder) for run in row.runs]
    return found[0][0], np.sum([counts for _, counts in found], axis=0)


def _panels(count: int, *, width: float = 5) -> tuple[Figure, list[Axes]]:
    columns = min(count, COLUMNS)
    lines = ceil(count / columns)
    figure = Figure(figsize=(width * columns, 4 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.axis("off")
    return figure, panels


def _wrapped(row: Row) -> str:
    return "\n".join(textwrap.wrap(f"{row.data}: {row.title}", 60))
