"""The confusion matrix as a picture, of one run or of all runs of a report's row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from memlab.files import named_in_errors

NUMBERED_CLASSES = 20
"""Up to so many classes their shares are written."""
NAMED_CLASSES = 100
"""Up to so many classes the picture of a run is large enough for their names."""


def draw_confusion(class_names: Sequence[str], counts: NDArray[np.int64], target: Path, *, title: str) -> None:
    """The confusion matrix of one run.

    Args:
        class_names: by class id.
        counts: (C, C) test objects by true class and answer.
        target: picture to write.
        title: what was trained.
    """
    size = min(max(0.4 * len(class_names), 4.0), 13.0)
    figure = Figure(figsize=(size + 2.0, size + 1.2), layout="constrained")
    axes = figure.subplots()
    image = draw_shares(axes, class_names, counts, named=NAMED_CLASSES, font_size=8)
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1), label="share of the true class")
    with named_in_errors(target):
        figure.savefig(target, dpi=130, bbox_inches="tight")


def draw_shares(
    axes: Axes, class_names: Sequence[str], counts: NDArray[np.int64], *, named: int, font_size: float
) -> AxesImage:
    """Shares of each true class; the colours go by their square root, so that few mistakes can be seen too.

    Args:
        axes: where to draw.
        class_names: by class id.
        counts: (C, C) objects by true class and answer.
        named: up to how many classes their names are written.
        font_size: of names and shares, in points.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    axes.set(xlabel="answer", ylabel="true class")
    if len(class_names) <= named:
        names = [name if len(name) <= 24 else f"{name[:22]}..." for name in class_names]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font_size, parse_math=False)
        axes.set_yticks(range(len(names)), names, fontsize=font_size, parse_math=False)
    if len(class_names) <= NUMBERED_CLASSES:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.25 else "black"
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=font_size)
    return image
