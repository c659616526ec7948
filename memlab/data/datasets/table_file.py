"""Rows of numbers in a table: a .csv, .tsv or .parquet file, with a column of classes or without."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memlab.files import in_utf8


class Table(NamedTuple):
    """What a file holds, column by column, and how to name a place in it."""

    columns: list[Sequence[Any]]
    """(F,) the cells of each column: words of a text file, values of another."""
    names: list[str]
    """(F,) of the columns; empty if the file has none."""
    row: Callable[[int], str]
    """What a row, counted from 0, is called: its line in a text file."""

    def place(self, row: int, column: int) -> str:
        """A cell, in words."""
        name = f" ({self.names[column]})" if self.names else ""
        return f"{self.row(row)}, column {column + 1}{name}"


def read_table(path: Path, *, features: int, target: str | None) -> tuple[Tensor, list[str] | None]:
    """The rows of a table as objects.

    The columns but the target are the features, in the order of training. A .csv file has commas between columns, a
    .tsv file tabs. Its first line is a header if the target stands in it, or if no cell of it is a number.

    Args:
        path: the file, .csv, .tsv or .parquet.
        features: how many an object has.
        target: the column of the classes, by its name or its place counted from 1; None for no such column.

    Returns:
        (n, F) objects in float32 and, with a target, (n,) names of their classes.

    Raises:
        ValueError: for a file that cannot be read or is empty, another number of columns, a cell that is no finite
            number, a class that is missing, or a target that there is not.
    """
    name = in_utf8(path)
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_text(path, target)
    if not table.columns or not len(table.columns[0]):
        raise ValueError(f"{name}: has no rows")
    own = None if target is None else _place_of(target, table, name)
    chosen = [column for column in range(len(table.columns)) if column != own]
    if len(chosen) != features:
        besides = "" if own is None else f" besides {target}"
        raise ValueError(
            f"{name}: has {len(chosen)} columns{besides}; must have {features}, the features in the order of training"
        )
    rows = np.stack([_numbers(table, column, name) for column in chosen], axis=1)
    labels = None if own is None else [_label(table, row, own, name) for row in range(len(rows))]
    return torch.from_numpy(rows.astype(np.float32)), labels


def _read_text(path: Path, target: str | None) -> Table:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append([cell.strip() for cell in cells])
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ValueError(f"{in_utf8(path)}: cannot be read as a table ({why})") from error
    for cells, line in zip(rows, lines, strict=True):
        if len(cells) != len(rows[0]):
            between = "tabs" if delimiter == "\t" else "commas"
            raise ValueError(
                f"{in_utf8(path)}: line {line} has {len(cells)} columns and line {lines[0]} has {len(rows[0])};"
                f" must have as many, with {between} between"
            )
    names: list[str] = []
    if rows and (target in rows[0] or not any(map(_is_number, rows[0]))):
        names, rows, lines = rows[0], rows[1:], lines[1:]
    return Table(list(zip(*rows, strict=True)), names, lambda row: f"line {lines[row]}")


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError(f'{in_utf8(path)}: needs pyarrow to be read: pip install "memlab[export]"') from error
    try:
        with ParquetFile(path) as file:
            table = file.read()
        columns = [column.to_pylist() for column in table.columns]
    except (OSError, ValueError, ArrowException) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{in_utf8(path)}: cannot be read as a table ({why})") from error
    return Table(columns, list(table.column_names), lambda row: f"row {row + 1}")


def _place_of(target: str, table: Table, name: str) -> int:
    if table.names.count(target) == 1:
        return table.names.index(target)
    if target.isdecimal() and 1 <= int(target) <= len(table.columns):
        return int(target) - 1
    named = f"one of {', '.join(table.names)}, or " if table.names else ""
    raise ValueError(
        f"target={target}: {name} has no such column; must be {named}a number from 1 to {len(table.columns)}"
    )


def _numbers(table: Table, column: int, name: str) -> np.ndarray[Any, Any]:
    """(n,) a column in float64."""
    cells = table.columns[column]
    try:
        values = np.array(cells).astype(np.float64)
        if values.ndim == 1 and np.isfinite(values).all():
            return values
    except (TypeError, ValueError):
        pass  # told below, of the first cell that is no number
    row = next(row for row, cell in enumerate(cells) if not _is_number(cell))
    given = "is empty" if _is_missing(cells[row]) else f"holds {' '.join(str(cells[row]).split()):.40}"
    raise ValueError(f"{name}: {table.place(row, column)} {given}; must be a finite number")


def _label(table: Table, row: int, column: int, name: str) -> str:
    cell = table.columns[column][row]
    if _is_missing(cell):
        raise ValueError(f"{name}: {table.place(row, column)} is empty; must be the name of a class")
    return str(cell)


def _is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or cell != cell


def _is_number(cell: Any) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except (TypeError, ValueError, OverflowError):
        return False
