from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from memlab.runs.confusion import draw_confusion, draw_shares


def counts(num_classes: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.full((num_classes, num_classes), 1) + 98 * np.eye(num_classes, dtype=np.int64)


@pytest.mark.parametrize(("num_classes", "named", "numbers"), [(2, 2, 4), (20, 20, 400), (21, 21, 0), (101, 0, 0)])
def test_names_and_shares_are_written_where_there_is_room(num_classes: int, named: int, numbers: int) -> None:
    axes = Figure().subplots()
    draw_shares(axes, [f"class {c}" for c in range(num_classes)], counts(num_classes), named=100, font_size=8)
    ticks = {label.get_text() for label in axes.get_yticklabels()}
    assert sum(f"class {c}" in ticks for c in range(num_classes)) == named
    assert len(axes.texts) == numbers


def test_shares_are_of_the_true_class_and_a_class_without_objects_has_none() -> None:
    axes = Figure().subplots()
    image = draw_shares(axes, ["a", "b", "c"], np.array([[3, 1, 0], [0, 6, 2], [0, 0, 0]]), named=3, font_size=8)
    np.testing.assert_allclose(np.asarray(image.get_array()), [[0.75, 0.25, 0.0], [0.0, 0.75, 0.25], [0.0, 0.0, 0.0]])
    assert [text.get_text() for text in axes.texts] == ["75", "25", "75", "25"]


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    names = ["$5 and $\\x_{", "a" * 200, "", "two\nlines", "café"]
    draw_confusion(names, counts(5), tmp_path / "confusion.png", title="of $\\x_{ and $")
    assert matplotlib.image.imread(tmp_path / "confusion.png").std() > 0.05
