"""Files of tables as frames: text with separators, Parquet and Excel, zipped or not.

Cells of text files and of Excel stay words, to be read by what their column is (`memlab.data.columns`).
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from memlab.data.columns import listed, shown
from memlab.files import in_utf8

if TYPE_CHECKING:
    from polars import DataFrame, Series

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".parquet", ".xlsx")
SEPARATORS = ",;\t|"
MOST_COLUMNS = 10_000
NEEDED = 'needs packages that are not there: pip install -e ".[tables]"'


def is_table(path: Path) -> bool:
    """Whether a file has the name of one that `read_frame` reads."""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_frame(path: Path) -> DataFrame:
    """The table in a file, with the names of its columns in its first line.

    In .csv files the separator is the one of ``, ; tab |`` that the first line has most of. Lines without anything in
    them are left out.

    Args:
        path: .csv, .tsv, .parquet or .xlsx (its first sheet), or any of them with .gz behind.

    Returns:
        columns of words, or of numbers in a Parquet file.

    Raises:
        ValueError: for what cannot be read as a table, in one line.
    """
    name = in_utf8(path)
    if not is_table(path):
        raise ValueError(f"{name}: must end in {', '.join(SUFFIXES)}, or in one of these and .gz")
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{name}: cannot be read ({why})") from error
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        frame = {".parquet": _parquet, ".xlsx": _excel}.get(kind, _text)(data, name)
    except ImportError as error:
        raise ValueError(f"{name}: {NEEDED}") from error
    if not frame.width or not frame.height:
        raise ValueError(f"{name}: has no rows; must have a line of names, and rows below it")
    return frame


def read_lists(path: Path) -> dict[str, Any]:
    """A Parquet file of sequences, a list of steps in each row, as arrays.

    Returns:
        ``X`` (S, m), steps of all rows one after the other, ``lengths`` (N,), and all other columns as lists.

    Raises:
        ValueError: for a file that cannot be read, or a column X of anything but lists of numbers, or of lists of as
            many numbers in each step; in one line.
    """
    name = in_utf8(path)
    try:
        frame = _as_it_is(path.read_bytes(), name)
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror})") from error
    except ImportError as error:
        raise ValueError(f"{name}: {NEEDED}") from error
    arrays: dict[str, Any] = {each.name: each.to_list() for each in frame.iter_columns()}
    if "X" not in arrays:
        return arrays
    rows = arrays["X"]
    if bad := [row for row, each in enumerate(rows) if not isinstance(each, list) or not each]:
        what = "no steps" if rows[bad[0]] in (None, []) else f"{type(rows[bad[0]]).__name__}, no list"
        raise ValueError(f"{name}: X[{bad[0]}] is {what}; must be a list of steps")
    steps = [[step] if isinstance(step, int | float) else step for row in rows for step in row]
    sizes = {len(step) if isinstance(step, list) else None for step in steps}
    if len(sizes) != 1 or not all(sizes):
        raise ValueError(f"{name}: steps of X are of several sizes or none; must be numbers, or lists of as many each")
    return {**arrays, "X": steps, "lengths": [len(row) for row in rows]}


def frame_of(table: Any, *, names: Sequence[str] = ()) -> DataFrame:
    """A frame of polars or pandas, a mapping of columns, or rows: mappings, or cells in the order of ``names``.

    Raises:
        ValueError: for anything else.
    """
    try:
        import polars

        if isinstance(table, polars.DataFrame):
            return _plain(table, "inputs")
        if hasattr(table, "columns") and hasattr(table, "to_dict"):  # of pandas, which need not be there
            table = dict(zip(_names(list(table.columns), "inputs"), map(_of_pandas, table.items()), strict=True))
        if isinstance(table, Mapping):
            return polars.DataFrame({str(name): _words(cells) for name, cells in table.items()})
        rows = [_in_order(row, names) if isinstance(row, Mapping) else list(row) for row in table]
        if wrong := [len(row) for row in rows if len(row) != len(names)]:
            raise ValueError(f"inputs: a row of {wrong[0]} cells; must be {len(names)}: {listed(names)}")
        columns = zip(*rows, strict=True) if rows else ([] for _ in names)
        return polars.DataFrame({name: _words(cells) for name, cells in zip(names, columns, strict=True)})
    except ImportError as error:
        raise ValueError(f"inputs: a table {NEEDED}") from error
    except TypeError as error:
        raise ValueError(f"inputs: must be a table, or rows of {len(names)} cells: {listed(names)}") from error


def _of_pandas(named: tuple[object, Any]) -> Any:
    """The cells of a column: its numbers, or what else it has and None where one is missing."""
    _, cells = named
    if getattr(cells.dtype, "kind", "O") in "iuf" and not hasattr(cells.dtype, "na_value"):
        return cells.to_numpy()
    return cells.astype(object).where(cells.notna(), None).tolist()


def _in_order(row: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    if missing := [name for name in names if name not in row]:
        raise ValueError(f"inputs: a row lacks the column {missing[0]}; must have {listed(names)}")
    return [row[name] for name in names]


def _words(cells: Iterable[Any]) -> Series:
    import polars

    if isinstance(cells, np.ndarray):
        return polars.Series(cells)
    cells = list(cells)
    if nested := [cell for cell in cells if isinstance(cell, list | tuple | dict)]:
        raise ValueError(f"inputs: a cell is {shown(nested[0])}; must be a number, a word or nothing")
    return polars.Series([None if cell is None or cell != cell else str(cell) for cell in cells], dtype=polars.String)


def _text(data: bytes, name: str) -> DataFrame:
    import polars

    data = _in_utf8(data, name)
    names, separator = _header(data, name)
    if not names:
        return polars.DataFrame()
    try:
        frame = polars.read_csv(data, separator=separator, infer_schema=False, empty_string_is_null=False)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        for line in _ragged(data, separator, len(names), name):
            raise ValueError(line) from error
        frame = _slowly(data, separator)  # as with quotes in the middle of cells
    frame.columns = names
    last = frame.to_series(frame.width - 1)
    if (last.is_null() | (last == "")).any():  # as of a line with too few cells
        for line in _ragged(data, separator, len(names), name):
            raise ValueError(line)
    empty = [frame[each].is_null() | (frame[each] == "") for each in names]
    if frame.width > 1 and bool((empty[0] & empty[-1]).any()):
        blank = polars.DataFrame(empty).select(polars.all_horizontal(polars.all())).to_series()
        frame = frame.filter(~blank)
    return frame


def _slowly(data: bytes, separator: str) -> DataFrame:
    """The same by Python's own reader, of lines that have as many cells."""
    import polars

    _, *rows = filter(None, csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator))
    columns = zip(*rows, strict=True)
    return polars.DataFrame([polars.Series(str(place), cells) for place, cells in enumerate(columns)])


def _in_utf8(data: bytes, name: str) -> bytes:
    """The text in UTF-8 with one kind of line end, whatever Excel and others save."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: cannot be read as a table (begins as UTF-16 and is not)") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        raise ValueError(f"{name}: cannot be read as a table (holds bytes of zero, as no text does)")
    try:
        data.decode()
    except UnicodeDecodeError:
        log.warning(f"{name}: is not UTF-8; read as cp1252, which older programs of Windows write")
        data = data.decode("cp1252", "replace").encode()
    if b"\r" in data and b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    return data.strip(b"\r\n")


def _header(data: bytes, name: str) -> tuple[list[str], str]:
    """Names of the columns, and what stands between them."""
    first = data[: MOST_COLUMNS * 1000]
    line = first.split(b"\n", 1)[0].decode("utf-8", "replace")
    counts = Counter(line)
    separator = "\t" if ".tsv" in name.lower() else max(SEPARATORS, key=lambda each: counts[each])
    if counts[separator] >= MOST_COLUMNS:
        raise ValueError(f"{name}: has {counts[separator] + 1:,} columns; must have at most {MOST_COLUMNS:,}")
    try:
        cells = next(csv.reader(io.StringIO(first.decode("utf-8", "replace")), delimiter=separator), [])
    except csv.Error as error:
        raise ValueError(f"{name}: cannot be read as a table ({error})") from error
    return _names(cells, name), separator


def _names(cells: list[Any], name: str) -> list[str]:
    names = [" ".join(str(cell).split()) if cell is not None else "" for cell in cells]
    names = [each or f"column {place}" for place, each in enumerate(names, start=1)]
    if twice := [each for each, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{name}: has {Counter(names)[twice[0]]} columns named {twice[0]}; must have each name once")
    return names


def _ragged(data: bytes, separator: str, width: int, name: str) -> Iterator[str]:
    """What is to be said of the first line that has too many or too few cells, if there is one."""
    between = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}[separator]
    reader = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator)
    try:
        for cells in reader:
            if cells and len(cells) != width:
                yield (
                    f"{name}: line {reader.line_num} has {len(cells)} cells and line 1 has {width}; must have as many,"
                    f" with {between} between"
                )
                return
    except csv.Error as error:
        yield f"{name}: cannot be read as a table (line {reader.line_num}: {error})"


def _parquet(data: bytes, name: str) -> DataFrame:
    return _plain(_as_it_is(data, name), name)


def _as_it_is(data: bytes, name: str) -> DataFrame:
    import polars

    try:
        return polars.read_parquet(io.BytesIO(data))
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise ValueError(f"{name}: cannot be read as a table ({_first_line(error)})") from error


def _plain(frame: DataFrame, name: str) -> DataFrame:
    """The same in numbers and words alone, dates as words."""
    import polars
    from polars import selectors

    frame = frame.rename(dict(zip(frame.columns, _names(frame.columns, name), strict=True)))
    for each in frame.iter_columns():
        if each.dtype.is_nested() or each.dtype in (polars.Binary, polars.Object):
            raise ValueError(f"{name}: column {each.name} holds {each.dtype} values; must hold numbers, words or dates")
    moments, durations = selectors.datetime(), selectors.duration()
    return frame.with_columns(
        moments.dt.to_string("%Y-%m-%d %H:%M:%S%.f"),
        durations.dt.total_microseconds() / 1e6,
        (~(selectors.numeric() | moments | durations)).cast(polars.String),
    )


def _excel(data: bytes, name: str) -> DataFrame:
    import polars
    from openpyxl import load_workbook

    try:
        sheet = load_workbook(io.BytesIO(data), read_only=True, data_only=True).worksheets[0]
        rows = [row for row in sheet.iter_rows(values_only=True) if any(cell is not None for cell in row)]
    except (BadZipFile, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: cannot be read as a table ({_first_line(error)})") from error
    if not rows:
        return polars.DataFrame()
    names = _names(list(rows[0]), name)
    words = ([None if cell is None else str(cell) for cell in column] for column in zip(*rows[1:], strict=True))
    return polars.DataFrame(dict(zip(names, words, strict=False)), schema=dict.fromkeys(names, polars.String))


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
