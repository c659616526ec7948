"""Tables as text and as Parquet: what is read is what was written, and what cannot be is told by its place."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memlab.data.datasets.table_file import read_table

ROWS = [[1.5, -2.0, 3e-7], [0.1, 1e10, -0.0], [7.0, 8.0, 9.25]]
CLASSES = ["ape", "bear", "a, b"]


def text(path: Path, words: str) -> Path:
    path.write_bytes(words.encode())
    return path


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet as file

    file.write_table(pyarrow.table(columns), path)
    return path


def written(suffix: str, folder: Path, *, header: bool) -> Path:
    columns = [*map(list, zip(*ROWS, strict=True))]
    if suffix == ".parquet":
        return parquet(folder / "t.parquet", {"a": columns[0], "class": CLASSES, "b": columns[1], "c": columns[2]})
    between = "\t" if suffix == ".tsv" else ","
    lines = [between.join(["a", "class", "b", "c"])] if header else []
    for (first, *rest), name in zip(ROWS, CLASSES, strict=True):
        lines.append(between.join([repr(first), f'"{name}"', *map(repr, rest)]))
    return text(folder / f"t{suffix}", "\ufeff" + "\r\n".join(lines) + "\r\n\r\n")


@pytest.mark.parametrize(
    ("suffix", "header", "target"),
    [
        (".csv", True, "class"),
        (".csv", True, "2"),
        (".csv", False, "2"),
        (".tsv", True, "class"),
        (".parquet", True, "class"),
        (".parquet", True, "2"),
    ],
)
def test_holds_what_was_written(suffix: str, header: bool, target: str, tmp_path: Path) -> None:
    inputs, labels = read_table(written(suffix, tmp_path, header=header), features=3, target=target)
    assert torch.equal(inputs, torch.tensor(np.array(ROWS), dtype=torch.float32))
    assert labels == CLASSES


def test_columns_without_classes(tmp_path: Path) -> None:
    inputs, labels = read_table(text(tmp_path / "t.csv", "1,2\n3,4\n"), features=2, target=None)
    assert (inputs.tolist(), labels) == ([[1, 2], [3, 4]], None)
    inputs, _ = read_table(parquet(tmp_path / "t.parquet", {"a": [1, 2], "b": [True, False]}), features=2, target=None)
    assert inputs.tolist() == [[1, 1], [2, 0]]


def test_a_header_of_numbers_is_known_by_the_target(tmp_path: Path) -> None:
    inputs, labels = read_table(text(tmp_path / "t.csv", "0,1,class\n5,6,x\n"), features=2, target="class")
    assert (inputs.tolist(), labels) == ([[5, 6]], ["x"])


@pytest.mark.parametrize(
    ("words", "target", "told"),
    [
        ("", None, "has no rows"),
        ("\n\n", None, "has no rows"),
        ("a,b\n", None, "has no rows"),
        ("1,2,3\n", None, "has 3 columns; must have 2, the features in the order of training"),
        ("x,2\n", "1", "has 1 columns besides 1; must have 2"),
        ("1;2\n3;4\n", None, "has 1 columns; must have 2"),
        ("1,2\n3\n", None, "line 2 has 1 columns and line 1 has 2; must have as many, with commas between"),
        ("a,b\n1,2\n\n3,x y\n", None, r"line 4, column 2 \(b\) holds x y; must be a finite number"),
        ("1,2\n3,\n", None, "line 2, column 2 is empty; must be a finite number"),
        ("1,2\n3,nan\n", None, "line 2, column 2 holds nan"),
        ("1,inf\n", None, "line 1, column 2 holds inf"),
        ("1,?\n3,4\n", None, r"line 1, column 2 holds \?"),
        ("a,b,c\n1,2,\n", "c", r"line 2, column 3 \(c\) is empty; must be the name of a class"),
        ("a,b,c\n1,2,x\n", "d", "target=d: .* has no such column; must be one of a, b, c, or a number from 1 to 3"),
        ("1,2,x\n", "4", "target=4: .* has no such column; must be a number from 1 to 3"),
        ('1,"2\n3', None, "line 2, column 2 holds 2 3; must be"),
    ],
)
def test_what_is_wrong_in_a_text_is_told_by_its_place(
    words: str, target: str | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        read_table(text(tmp_path / "t.csv", words), features=2, target=target)
    assert str(raised.value).startswith(("target", str(tmp_path / "t.csv")))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"a": [1.0, 2.0], "b": [3.0, None], "c": ["x", "y"]}, r"row 2, column 2 \(b\) is empty"),
        ({"a": ["1", "two"], "b": [3, 4], "c": ["x", "y"]}, r"row 2, column 1 \(a\) holds two"),
        ({"a": [date(2020, 1, 1)] * 2, "b": [3, 4], "c": ["x", "y"]}, "row 1, column 1 .* holds 2020-01-01"),
        ({"a": [[1.0], [2.0]], "b": [3, 4], "c": ["x", "y"]}, r"holds \[1.0\]"),
        ({"a": [1, 2], "b": [3, 4], "c": ["x", None]}, r"row 2, column 3 \(c\) is empty"),
        ({"a": [1, 2], "b": [3, 4], "c": [1.0, float("nan")]}, r"row 2, column 3 \(c\) is empty"),
        ({"a": [], "b": [], "c": []}, "has no rows"),
    ],
)
def test_what_is_wrong_in_parquet_is_told_by_its_place(columns: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        read_table(parquet(tmp_path / "t.parquet", columns), features=2, target="c")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_is_no_table_is_told(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (tmp_path / f"t{suffix}").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="cannot be read as a table") as raised:
        read_table(tmp_path / f"t{suffix}", features=2, target=None)
    assert len(str(raised.value).splitlines()) == 1
