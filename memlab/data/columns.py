"""What the columns of a table are, learned from one table and applied to others: its numbers, dates and words.

Cells are words of a text file, or values of another. A cell is missing if nothing or one of `MISSING` stands in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from polars import DataFrame, Series

KINDS = ("number", "word", "yes/no", "date")
MISSING = ("", "?", "-", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nat")
"""What stands in a cell that is missing, in large letters or small."""
LARGEST = 1e30
"""A number beyond is missing: no float32 could tell the others of its column apart."""
ANSWERS = {"no": 0.0, "n": 0.0, "false": 0.0, "f": 0.0, "yes": 1.0, "y": 1.0, "true": 1.0, "t": 1.0}
ISO = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
)
"""Forms of dates that are never another's."""
DAY = 86_400_000_000
"""Microseconds."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: in the line of names.
        kind: one of `KINDS`.
        words: of a column of words, those with a code: the first has 1.
        form: of dates, as of strptime; of numbers ``1.234,5`` or ``1,234.5`` where they are written so.
    """

    name: str
    kind: str
    words: tuple[str, ...] = ()
    form: str = ""

    def cell(self, value: float) -> str:
        """What a value is in words, empty where it is missing."""
        if math.isnan(value):
            return ""
        if self.kind == "word":
            return self.words[int(value) - 1] if value else "(another word)"
        if self.kind == "yes/no":
            return "yes" if value else "no"
        if self.kind == "date":
            moment = datetime(1970, 1, 1) + timedelta(days=value)
            return str(moment.date() if value == round(value) else moment.replace(microsecond=0))
        return f"{value:.12g}"

    def values(self, cells: Series) -> Series:
        """The cells in float64, null where one is missing or cannot be read.

        Numbers as they are, dates in days since 1970, yes as 1 and no as 0, words as their codes from 1, or 0 for one
        without a code.
        """
        return {"number": self._numbers, "word": self._codes, "yes/no": self._answers, "date": self._days}[self.kind](
            cells
        )

    def _numbers(self, cells: Series) -> Series:
        from polars import Float64, String

        if cells.dtype == String and self.form:
            found = _by_distinct(cells, self._written)
        else:
            found = cells.cast(Float64, strict=False)
            if cells.dtype == String and (others := found.is_null()).any():  # few need more than a cast
                found = found.scatter(others.arg_true(), _by_distinct(cells.filter(others), self._written))
        return found.set(~(found.abs() <= LARGEST), None)  # NaN too

    def _written(self, distinct: Series) -> Series:
        from polars import Float64

        return plain_number(trimmed(distinct), self.form).cast(Float64, strict=False)

    def _days(self, cells: Series) -> Series:
        def days(distinct: Series) -> Series:
            words = trimmed(distinct)
            moments = _microseconds(words, self.form)
            for form in ISO:  # whatever the form of a column, these can be told from it
                if moments.null_count() > words.null_count():
                    moments = moments.fill_null(_microseconds(words, form))
            return moments / DAY

        return _by_distinct(cells, days)

    def _answers(self, cells: Series) -> Series:
        from polars import Float64

        return _by_distinct(
            cells,
            lambda distinct: (
                trimmed(distinct).str.to_lowercase().replace_strict(ANSWERS, default=None, return_dtype=Float64)
            ),
        )

    def _codes(self, cells: Series) -> Series:
        from polars import Float64

        numbers = {word: float(code) for code, word in enumerate(self.words, start=1)}

        def codes(distinct: Series) -> Series:
            words = trimmed(distinct)
            return words.replace_strict(numbers, default=0.0, return_dtype=Float64).set(words.is_null(), None)

        return _by_distinct(cells, codes)


def _microseconds(words: Series, form: str) -> Series:
    """Since 1970, null where a word is not of this form."""
    return words.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us")


def _by_distinct(cells: Series, values: Callable[[Series], Series]) -> Series:
    """The values of cells, found once for those that are equal."""
    from polars import Float64

    distinct = cells.unique().drop_nulls()
    if not len(distinct):
        return cells.cast(Float64, strict=False)
    return cells.replace_strict(distinct, values(distinct), default=None, return_dtype=Float64)


@dataclass(frozen=True)
class Columns:
    """The columns that a row has, and the one that has been its class.

    Args:
        columns: in the order of a row's values.
        target: name of the column of classes.
    """

    columns: tuple[Column, ...]
    target: str

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def names(self) -> list[str]:
        """(F,) of the columns."""
        return [column.name for column in self.columns]

    @property
    def words(self) -> tuple[int, ...]:
        """(F,) words with a code of each column; 0 for numbers, dates, yes and no."""
        return tuple(len(column.words) for column in self.columns)

    def rows(self, frame: DataFrame, *, name: str) -> tuple[Tensor, list[str]]:
        """The values of a table, whatever the order of its columns and whatever others it has.

        Args:
            frame: the table.
            name: what it is called in a message.

        Returns:
            (n, F) float64, NaN where a value is missing; and what of it could not be read, a line for each column.

        Raises:
            ValueError: if a column is missing, or nothing in one can be read.
        """
        import polars

        there = frame.columns
        if missing := [column.name for column in self.columns if column.name not in there]:
            more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise ValueError(f"{name}: lacks the column {missing[0]}{more}; must have all that were trained on")
        values = [column.values(frame[column.name]).rename(str(place)) for place, column in enumerate(self.columns)]
        notes = [
            note
            for column, found in zip(self.columns, values, strict=True)
            if (note := _unread(column, frame[column.name], found, name))
        ]
        return torch.from_numpy(polars.DataFrame(values).to_numpy().copy(order="C")), notes

    def cells(self, row: Tensor) -> list[str]:
        """(F,) values in words; see `Column.cell`."""
        return [column.cell(value) for column, value in zip(self.columns, row.tolist(), strict=True)]

    def described(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            "target": self.target,
            "columns": [{**asdict(column), "words": list(column.words)} for column in self.columns],
        }

    @classmethod
    def from_described(cls, described: Mapping[str, Any]) -> Columns:
        """What `described` gave.

        Raises:
            KeyError, TypeError, ValueError: for anything else.
        """
        columns = tuple(Column(**{**each, "words": tuple(each["words"])}) for each in described["columns"])
        for column in columns:
            texts = (column.name, column.form, *column.words)
            if column.kind not in KINDS or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"column {column.name} is of the kind {column.kind}")
        if not columns or not isinstance(described["target"], str):
            raise ValueError("there are no columns, or no target")
        return cls(columns, described["target"])


def as_text(cells: Series) -> Series:
    """The cells as words, whatever they were."""
    from polars import String

    return cells if cells.dtype == String else cells.cast(String)


def trimmed(cells: Series) -> Series:
    """The cells as words without spaces around them, null where one is missing."""
    text = as_text(cells).str.strip_chars()
    return text.set(text.str.to_lowercase().is_in(MISSING), None)


def plain_number(text: Series, form: str) -> Series:
    """Numbers with a point and nothing between thousands."""
    if not form:
        return text
    thousands, point = form[1], form[5]
    return text.str.replace_all(thousands, "", literal=True).str.replace(point, ".", literal=True)


def unread_cells(cells: Series, values: Series) -> Series:
    """The cells, as words, that are not missing and yet have no value."""
    return trimmed(cells.filter(values.is_null())).drop_nulls()


def _unread(column: Column, cells: Series, values: Series, name: str) -> str:
    unread = unread_cells(cells, values)
    if not len(unread):
        return ""
    given = f"{len(unread):,} cells that are no {column.kind}, as {shown(unread[0])}"
    if values.null_count() == len(values):
        raise ValueError(f"{name}: column {column.name} has {given}, and none that is; must be of the kind trained on")
    return f"{name}: column {column.name} has {given}; taken as missing"


def shown(text: object) -> str:
    """A cell in a message: on one line, and not all of it if it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= 40 else f"{line[:37]}..."


def listed(names: Sequence[str], limit: int = 20) -> str:
    """Names with commas between, the first of many."""
    return ", ".join(names[:limit]) + (f", ... ({len(names):,} in all)" if len(names) > limit else "")
