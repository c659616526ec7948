"""A user's own table: a file with a column of classes and columns of numbers, words, dates, yes and no."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from memlab.checks import check_number, check_whole_number
from memlab.data.column_kinds import Found, find_columns
from memlab.data.columns import Column, Columns, listed, shown, trimmed, unread_cells
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.frames import read_frame
from memlab.data.objects import ObjectStore

if TYPE_CHECKING:
    from polars import DataFrame, Series

log = logging.getLogger(__name__)

TOLD = 40
"""Columns that are told one by one."""


def table(
    *,
    path: str,
    target: str,
    test_path: str | None,
    columns: Mapping[str, str] | None,
    rare_below: int,
    test_fraction: float,
    split_seed: int,
) -> LabelledData:
    """The rows of a file as objects, (F,) float64: numbers, days since 1970, 1 for yes, codes of words; NaN is missing.

    What the columns are is found out and told, with a warning for those that should be looked at; words get their codes
    from the training rows alone. Rows without a class are left out.

    Args:
        path: .csv, .tsv, .parquet or .xlsx, or one of these with .gz behind; see `memlab.data.frames`.
        target: name of the column of classes.
        test_path: file of the test rows; None to hold some rows out.
        columns: kinds by column, ``number``, ``word``, ``yes/no``, ``date`` or ``ignore``, where another is found.
        rare_below: words in fewer training rows are one, with those that were not seen in training.
        test_fraction: share of the rows held out, between 0 and 1, without ``test_path``.
        split_seed: seed of that split, apart from the seed of a run.

    Raises:
        ValueError: for a file that cannot be read, a column or kind that there is not, or nothing to learn from.
    """
    check_whole_number("rare_below", rare_below)
    target = str(target)
    given = {"path": path} if test_path is None else {"path": path, "test_path": test_path}
    parts = [_Part.read(name, Path(str(file)), target) for name, file in given.items()]
    class_names = _class_names(parts, target)
    labels = [part.labels(class_names) for part in parts]
    size = len(labels[0])
    train_rows = (labels[0] >= 0).nonzero().flatten()
    if test_path is None:
        check_number("test_fraction", test_fraction, above=0, below=1)
        train_rows, test_rows = stratified_split(train_rows, labels[0], held_out=test_fraction, seed=split_seed)
    else:
        test_rows = size + (labels[1] >= 0).nonzero().flatten()
    kinds = {str(name): str(kind) for name, kind in (columns or {}).items()}
    schema = _learned(parts[0], train_rows, kinds=kinds, target=target, rare_below=rare_below)
    store = ObjectStore(
        inputs=torch.cat([part.rows(schema) for part in parts]),
        labels=torch.cat(labels),
        class_names=class_names,
        columns=schema,
    )
    return LabelledData(parts[0].file.name.split(".")[0], store, train_rows, test_rows, _source(parts))


class _Part(NamedTuple):
    """A file of rows with classes."""

    parameter: str
    file: Path
    frame: DataFrame
    classes: Series
    """(n,) names, null where there is none."""

    @classmethod
    def read(cls, parameter: str, file: Path, target: str) -> _Part:
        try:
            frame = read_frame(file)
        except ValueError as error:
            raise ValueError(f"{parameter}={error}") from error
        if target not in frame.columns:
            close = difflib.get_close_matches(target, frame.columns, n=1)
            hint = f"did you mean {close[0]}?" if close else f"must be one of {listed(frame.columns)}"
            raise ValueError(f"target={target}: {file} has no such column in its first line; {hint}")
        part = cls(parameter, file, frame, trimmed(frame[target]))
        if unlabelled := part.classes.null_count():
            log.warning(f"{file}: {unlabelled:,} of {len(frame):,} rows have no {target}; they are left out")
        return part

    def labels(self, class_names: Sequence[str]) -> Tensor:
        """(n,) class ids; -1 where there is no class."""
        from polars import Int64

        numbers = {name: number for number, name in enumerate(class_names)}
        found = self.classes.replace_strict(numbers, default=-1, return_dtype=Int64)
        return torch.from_numpy(found.to_numpy().copy())

    def rows(self, schema: Columns) -> Tensor:
        """(n, F) values; what cannot be read is told."""
        values, notes = schema.rows(self.frame, name=f"{self.parameter}={self.file}")
        for note in notes:
            log.warning(note)
        return values


def _class_names(parts: Sequence[_Part], target: str) -> tuple[str, ...]:
    """The classes, by number if they are numbers.

    Raises:
        ValueError: if there are fewer than two, or about as many as rows.
    """
    names = [each for part in parts for each in part.classes.drop_nulls().unique().to_list()]
    names = sorted(sorted(set(names)), key=_by_number)
    rows = len(parts[0].classes) - parts[0].classes.null_count()
    if len(names) < 2:
        raise ValueError(f"target={target}: is {names[0] if names else 'missing'} in every row; must have two classes")
    if len(names) > max(rows / 2, 2):
        raise ValueError(
            f"target={target}: has {len(names):,} different values in {rows:,} rows, as {shown(names[0])}; must be"
            " classes, of several rows each"
        )
    return tuple(names)


def _by_number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return 0.0


def _learned(part: _Part, rows: Tensor, *, kinds: Mapping[str, str], target: str, rare_below: int) -> Columns:
    """What the columns are, by the training rows; it is told.

    Raises:
        ValueError: if no column is left.
    """
    _check_one_header(part, target)
    found = find_columns(part.frame, rows.numpy(), target=target, chosen=kinds, rare_below=rare_below)
    log.info(_told(found, part.file, len(rows)))
    for each in found:
        for warning in each.warnings:
            log.warning(warning)
    kept = tuple(each.column for each in found if not each.ignored)
    if not kept:
        raise ValueError(f"{part.parameter}={part.file}: has no column besides {target} that tells rows apart")
    return Columns(kept, target)


def _check_one_header(part: _Part, target: str) -> None:
    """See that the first row is one of values.

    Raises:
        ValueError: if in two columns or more, and all that are numbers below it, something else stands in it.
    """
    cells = [part.frame[name] for name in part.frame.columns if name != target]
    below = [each for each in cells if Column("", "number").values(each[1:101]).null_count() == 0 and len(each) > 1]
    first = [each for each in below if len(unread_cells(each[:1], Column("", "number").values(each[:1])))]
    if len(first) >= 2 and len(first) == len(below):
        raise ValueError(
            f"{part.parameter}={part.file}: has no numbers in its first row, as {shown(first[0][0])}, where all others"
            " have; must have one line of names, take the second away"
        )


def _source(parts: Sequence[_Part]) -> Callable[[int], str]:
    names, size = [part.file.name for part in parts], len(parts[0].frame)
    return lambda row: f"{names[0]} row {row + 1}" if row < size else f"{names[1]} row {row - size + 1}"


def _told(found: Sequence[Found], file: Path, rows: int) -> str:
    """All columns in a table."""
    lines = [("column", "kind", "missing", "values")]
    for each in found[:TOLD]:
        kind = f"left out, {each.ignored}" if each.ignored else each.column.kind
        lines.append((shown(each.column.name), kind, f"{each.missing:.1%}" if each.missing else "", each.told))
    widths = [max(len(line[place]) for line in lines) for place in range(4)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if more := found[TOLD:]:
        counts = Counter("left out" if each.ignored else each.column.kind for each in more)
        text.append(f"and {', '.join(f'{count:,} {kind}' for kind, count in counts.items())}")
    return "\n".join([f"{file}: {len(found)} columns of {rows:,} training rows", *text])
