"""Finding out what the columns of a table are, and which of them a reader should look at before anything is trained."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memlab.data.columns import ANSWERS, ISO, KINDS, Column, Columns, listed, shown, trimmed, unread_cells

if TYPE_CHECKING:
    from polars import DataFrame, Series

CHOICES = (*KINDS, "ignore")
MOSTLY = 0.95
"""Share of the cells that must be numbers if a column is to be one of numbers."""
POINT_LAST, COMMA_LAST = "1,234.5", "1.234,5"
FORMS = {
    COMMA_LAST: r"^[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?$",
    POINT_LAST: r"^[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?$",
}
"""How numbers may be written besides the plain way."""
DATES = (*ISO, "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y")
LOOKED_AT = 20_000
"""Rows that a look at a column's values takes in."""
BINS, GIVEN_AWAY = 50, 0.999
"""Into how many parts numbers are cut, and what share of rows whose class they tell makes the target in disguise."""
TOLD_WORDS = 3
MOST_WORDS = 1000
"""Words of a column that have a code, the most frequent."""


@dataclass(frozen=True)
class Found:
    """A column, and what is to be told of it."""

    column: Column
    missing: float
    """Share of the rows."""
    told: str
    """Its range, or its most frequent words."""
    warnings: tuple[str, ...] = ()
    ignored: str = ""
    """Why it is left out, if it is."""


def find_columns(
    frame: DataFrame, rows: NDArray[np.int64], *, target: str, chosen: Mapping[str, str], rare_below: int
) -> list[Found]:
    """What each column but the target is.

    Of large tables every so many rows are looked at, but words are counted in all.

    Args:
        frame: a table.
        rows: those to be learned from, of which there are some.
        target: the column of classes.
        chosen: kinds by name of a column, in the place of what would be found; ``ignore`` to leave one out.
        rare_below: words that fewer rows have get no code.

    Raises:
        ValueError: for a column or a kind that there is not, or one that a column cannot be of.
    """
    for name, kind in chosen.items():
        if name not in frame.columns or name == target:
            close = difflib.get_close_matches(name, [each for each in frame.columns if each != target], n=1)
            hint = f"did you mean {close[0]}?" if close else f"must be one of {listed(frame.columns)}"
            raise ValueError(f"columns={{{name}: {kind}}}: there is no such column besides the target; {hint}")
        if kind not in CHOICES:
            raise ValueError(f"columns={{{name}: {kind}}}: must be one of {', '.join(CHOICES)}")
    few = frame[rows[:: -(-len(rows) // LOOKED_AT)]]
    names, classes = [name for name in frame.columns if name != target], trimmed(few[target])
    return [
        _found(few[name], partial(frame[name].gather, rows), classes, chosen.get(name), rare_below) for name in names
    ]


def learned_columns(frame: DataFrame, labels: Sequence[str], *, rare_below: int) -> Columns:
    """The columns of a table without one of classes, by all its rows.

    Args:
        frame: the table.
        labels: (n,) names of the classes of its rows.
        rare_below: see `find_columns`.

    Raises:
        ValueError: if no column is left.
    """
    from polars import Series

    target = "class"
    while target in frame.columns:
        target += " "
    whole = frame.with_columns(Series(target, labels))
    found = find_columns(whole, np.arange(len(whole)), target=target, chosen={}, rare_below=rare_below)
    kept = tuple(each.column for each in found if not each.ignored)
    if not kept:
        raise ValueError("X: has no column that tells rows apart")
    return Columns(kept, target)


def _found(few: Series, cells: Callable[[], Series], classes: Series, chosen: str | None, rare_below: int) -> Found:
    name = few.name
    if chosen == "ignore":
        return Found(Column(name, "word"), 0.0, "", ignored="as asked for")
    column = _of_kind(few, chosen) if chosen else _guessed(few)
    if column.kind == "word":
        column = replace(column, words=_words(cells(), rare_below))
    values = column.values(few)
    if values.n_unique() == 1:  # of some rows, which is not to say of all
        values = column.values(few := cells())
    missing = values.null_count() / max(len(few), 1)
    if missing == 1:
        return Found(column, missing, "", ignored="nothing in it but missing cells")
    if column.kind == "word" and not column.words:
        warning = f"column {name}: hardly any word is in {rare_below} rows, as of names or texts; it is left out"
        return Found(column, missing, "", (warning,), ignored="too many words")
    if values.n_unique() == 1:
        warning = f"column {name}: is constant, {shown(few[0])} in every row; it is left out"
        return Found(column, missing, "", (warning,), ignored="constant")
    return Found(column, missing, _told(column, values), tuple(_warnings(column, values, classes)))


def _of_kind(cells: Series, kind: str) -> Column:
    """A column of the kind asked for.

    Raises:
        ValueError: if none of its cells is.
    """
    column = Column(cells.name, kind)
    if kind == "date":
        column = _date(cells, trimmed(cells).drop_nulls(), at_least=0.0) or replace(column, form=DATES[0])
    if kind == "number":
        column = _number(cells, at_least=0.0) or column
    values = column.values(cells)
    if values.null_count() == len(cells) and len(bad := unread_cells(cells, values)):
        raise ValueError(f"columns={{{cells.name}: {kind}}}: none of its cells is one, as {shown(bad[0])}")
    return column


def _guessed(cells: Series) -> Column:
    if (number := _number(cells, at_least=MOSTLY)) is not None:
        return number
    words = trimmed(cells).drop_nulls()
    few = set(words.str.to_lowercase().unique().head(3))
    if few <= ANSWERS.keys() and len({ANSWERS[word] for word in few}) == len(few):
        return Column(cells.name, "yes/no")
    return _date(cells, words, at_least=1.0) or Column(cells.name, "word")


def _number(cells: Series, *, at_least: float) -> Column | None:
    """A column of numbers if so large a share of the cells is, in one of the `FORMS`."""
    column = Column(cells.name, "number")
    values = column.values(cells)
    unread = unread_cells(cells, values)
    written = len(values) - values.null_count()
    if not len(unread) or (not written and not at_least):
        return column
    if (form := _form(trimmed(cells).drop_nulls(), unread)) is not None:
        return replace(column, form=form)
    share = written / (written + len(unread))
    return column if share >= max(at_least, 1e-9) else None


def _form(written: Series, unread: Series) -> str | None:
    """How all numbers are written, if in one of the `FORMS`; 1,234 is above a thousand unless others say otherwise."""
    if not bool(unread.str.contains(",", literal=True).all()):
        return None
    if bool(written.str.contains(FORMS[COMMA_LAST]).all()) and not bool(unread.str.contains(r",\d{3}$").all()):
        return COMMA_LAST
    return POINT_LAST if bool(written.str.contains(FORMS[POINT_LAST]).all()) else None


def _date(cells: Series, words: Series, *, at_least: float) -> Column | None:
    for form in DATES:
        column = Column(cells.name, "date", form=form)
        if column.values(words.head(100)).null_count() > (1 - at_least) * min(len(words), 100):
            continue
        read = len(words) - column.values(words).null_count()
        if read and read >= at_least * len(words):
            return column
    return None


def _words(cells: Series, rare_below: int) -> tuple[str, ...]:
    counts = trimmed(cells).rename("word").drop_nulls().value_counts(name="rows")
    counts = counts.filter(counts["rows"] >= rare_below).sort(["rows", "word"], descending=[True, False])
    return tuple(counts["word"].head(MOST_WORDS))


def _told(column: Column, values: Series) -> str:
    if column.kind == "word":
        more = ", ..." if len(column.words) > TOLD_WORDS else ""
        return f"{len(column.words):,}: {', '.join(map(shown, column.words[:TOLD_WORDS]))}{more}"
    if column.kind == "yes/no":
        return f"yes in {values.drop_nulls().to_numpy().mean():.1%}"
    ends = [float(end) for end in values.to_numpy()[[values.arg_min() or 0, values.arg_max() or 0]]]
    if column.kind == "date":
        return " to ".join(str(datetime(1970, 1, 1) + timedelta(days=days))[:16] for days in ends)
    return f"{ends[0]:g} to {ends[1]:g}"


def _warnings(column: Column, values: Series, classes: Series) -> Iterator[str]:
    start, leave_out = f"column {column.name}:", f"data.columns.{column.name}=ignore"
    if column.form in FORMS:
        yield f"{start} its numbers are read as written {column.form}"
    if column.form in ("%m/%d/%Y", "%d/%m/%Y"):
        yield f"{start} its dates are read as {'month/day' if column.form == '%m/%d/%Y' else 'day/month'}/year"
    if _numbers_the_rows(column, values):
        yield f"{start} has another whole number in each row, as an identifier; leave it out with {leave_out}"
    if _gives_away(values, classes):
        yield (
            f"{start} tells the class of nearly every row by itself, as the target in disguise; if it is not known"
            f" before the class is, leave it out with {leave_out}"
        )


def _numbers_the_rows(column: Column, values: Series) -> bool:
    return column.kind == "number" and values.n_unique() == len(values) and bool((values == values.round()).all())


def _gives_away(values: Series, classes: Series) -> bool:
    """Whether the value, or the part of the range it is in, tells the class; of groups of ten rows and more."""
    from polars import DataFrame

    pairs = DataFrame({"value": values, "class": classes})
    if pairs["value"].n_unique() > BINS:
        pairs = pairs.with_columns((pairs["value"].rank("average") * BINS / (pairs.height + 1)).floor())
    if pairs.height < 10 * pairs["value"].n_unique():
        return False
    counts = pairs.group_by("value", "class").len()
    told = counts.sort("len").unique("value", keep="last")["len"].sum()
    commonest = int(pairs["class"].value_counts()["count"].max())  # type: ignore[arg-type]
    return bool(told >= GIVEN_AWAY * pairs.height > commonest)
