"""Tables of every kind that people have, the broken ones among them."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.data.columns import Column, Columns
from memlab.data.datasets import LabelledData, table, varied
from memlab.data.frames import read_frame

polars = pytest.importorskip("polars")
ROWS = 40
CITIES = ["Rome", "Oslo", "Lima", "Cairo"]


def cells(row: int) -> dict[str, str]:
    """One row of a sound table."""
    return {
        "age": str(20 + row % 7) if row % 10 else "",
        "city": CITIES[row % 4] if row % 9 else "NA",
        "member": ["yes", "no"][row % 2],
        "since": str(date(2020, 1, 1) + timedelta(days=row % 13)),
        "income": [">50K", "<=50K"][row % 2 if row % 5 else row % 3 % 2],
    }


def text(rows: list[dict[str, str]] | None = None, separator: str = ",") -> str:
    rows = [cells(row) for row in range(ROWS)] if rows is None else rows
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(separator.join(f'"{cell}"' if separator in cell else cell for cell in line) + "\n" for line in lines)


def read(path: Path, **words: Any) -> LabelledData:
    given = {
        "path": str(path),
        "target": "income",
        "test_path": None,
        "columns": None,
        "rare_below": 3,
        "test_fraction": 0.25,
        "split_seed": 0,
    }
    return table(**{**given, **words})


def written(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def schema(data: LabelledData) -> Columns:
    assert data.store.columns is not None
    return data.store.columns


def kinds(data: LabelledData) -> dict[str, str]:
    return {column.name: column.kind for column in schema(data).columns}


def sound_values(row: int) -> list[float]:
    given = cells(row)
    age = float(given["age"] or "nan")
    days = (date.fromisoformat(given["since"]) - date(1970, 1, 1)).days
    return [age, float(given["member"] == "yes"), float(days)]


def assert_sound(data: LabelledData) -> None:
    """What a plain loop over the cells of the sound table gives."""
    assert kinds(data) == {"age": "number", "city": "word", "member": "yes/no", "since": "date"}
    city = schema(data).columns[1].words
    assert sorted(city) == sorted(CITIES)
    for row, found in enumerate(data.store.inputs.tolist()):
        expected = sound_values(row)
        word = cells(row)["city"]
        expected.insert(1, math.nan if word == "NA" else 1.0 + city.index(word))
        assert found == pytest.approx(expected, nan_ok=True)
        assert data.store.class_names[data.store.labels[row]] == cells(row)["income"]


def as_excel(content: str, path: Path) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for place, line in enumerate(content.splitlines()):
        row: list[Any] = [cell or None for cell in line.split(",")]
        if place:
            row[0], row[3] = row[0] and int(row[0]), datetime.fromisoformat(row[3])
        sheet.append(row)
    book.save(path)
    return path


def as_parquet(content: str, path: Path) -> Path:
    frame = polars.read_csv(content.encode(), try_parse_dates=True, null_values=["NA"])
    frame.with_columns(polars.col("member") == "yes").write_parquet(path)
    return path


def zipped(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


SOUND: dict[str, Callable[[Path], Path]] = {
    "commas": lambda folder: written(folder, text()),
    "semicolons": lambda folder: written(folder, text(separator=";")),
    "bars": lambda folder: written(folder, text(separator="|")),
    "tabs": lambda folder: written(folder, text(separator="\t"), "table.tsv"),
    "a byte order mark": lambda folder: written(folder, b"\xef\xbb\xbf" + text().encode()),
    "UTF-16": lambda folder: written(folder, text().encode("utf-16")),
    "line ends of Windows": lambda folder: written(folder, text().replace("\n", "\r\n")),
    "line ends of old Macs": lambda folder: written(folder, text().replace("\n", "\r")),
    "spaces around cells": lambda folder: written(folder, text().replace(",", " , ")),
    "blank lines": lambda folder: written(folder, text().replace("\n", "\n\n") + "\n\n"),
    "lines without cells": lambda folder: written(folder, text() + ",,,,\n"),
    "quotes": lambda folder: written(folder, text().replace("Rome", '"Rome"')),
    "gzip": lambda folder: zipped(written(folder, text())),
    "Excel": lambda folder: as_excel(text(), folder / "table.xlsx"),
    "Parquet": lambda folder: as_parquet(text(), folder / "table.parquet"),
    "Parquet in gzip": lambda folder: zipped(as_parquet(text(), folder / "table.parquet")),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_table_is_read_alike_from_every_kind_of_file(name: str, tmp_path: Path) -> None:
    data = read(SOUND[name](tmp_path))
    assert_sound(data)
    assert len(data.test_rows) == ROWS / 4
    assert data.source(3).endswith("row 4")


def changed(**columns: Callable[[int], str]) -> str:
    """The sound table with other cells in some columns, or more columns."""
    rows = [{**cells(row), **{name: make(row) for name, make in columns.items()}} for row in range(ROWS)]
    return text(rows)


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "nothing": (b"", "has no rows|cannot be read"),
    "names alone": ("age,income\n", "has no rows"),
    "a row too short": (text() + "31,Rome,yes\n", "line 42 has 3 cells and line 1 has 5"),
    "a row too long": (text() + "31,Rome,yes,2020-01-01,>50K,more\n", "line 42 has 6 cells and line 1 has 5"),
    "two lines of names": (
        changed(
            age=lambda row: str(row) if row else "years",
            size=lambda row: str(row % 9) if row else "cm",
        ),
        "one line of names",
    ),
    "a name twice": (text().replace("city", "age", 1), "has 2 columns named age"),
    "no line of names": (text().split("\n", 1)[1], "target=income: .* has no such column"),
    "no target": (text().replace("income", "incomes", 1), "did you mean incomes"),
    "one class": (changed(income=lambda _: "low"), "is low in every row; must have two classes"),
    "no class": (changed(income=lambda _: "?"), "is missing in every row"),
    "a class for each row": (changed(income=lambda row: f"{row / 7}"), "40 different values in 40 rows"),
    "a class of one row": (changed(income=lambda row: "rare" if not row else CITIES[row % 2]), "held-out share"),
    "the target alone": ("income\n" + "a\nb\n" * 20, "has no column besides income"),
    "nothing but constants": ("a,income\n" + "1,x\n1,y\n" * 20, "has no column besides income"),
    "an open quote": (text().replace("Rome", '"Rome', 1), "cannot be read as a table|has .* cells"),
    "bytes of zero": (text().encode() + b"\0\0", "bytes of zero"),
    "a million columns": (",".join(map(str, range(10**6))) + "\n", "1,000,000 columns; must have at most 10,000"),
    "half of UTF-16": (b"\xff\xfea", "begins as UTF-16 and is not"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_is_told_in_a_line(name: str, tmp_path: Path) -> None:
    content, told = BROKEN[name]
    with pytest.raises(ValueError, match=told) as caught:
        read(written(tmp_path, content))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(("path=", "target=", "held-out"))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet", "t.xlsx", "t.txt", "none.csv"])
def test_a_file_that_is_not_what_its_name_says_is_told_in_a_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name if name == "none.csv" else written(tmp_path, text(), name)
    with pytest.raises(ValueError, match=r"cannot be read|must end in") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


Make = Callable[[int], str]


def but_row_4(cell: str) -> dict[str, Make]:
    return {"age": lambda row: cell if row == 4 else str(row)}


DISGUISED = "the target in disguise"
HANDLED: dict[str, tuple[dict[str, Make], str, str, list[Any]]] = {
    "1e308": (but_row_4("1e308"), "number", "1 cells that are no number, as 1e308", [3.0, None, 5.0]),
    "infinity": (but_row_4("-inf"), "number", "no number, as -inf", [3.0, None, 5.0]),
    "a word among numbers": (but_row_4("old"), "number", "no number, as old", [3.0, None, 5.0]),
    "decimal commas": ({"age": lambda row: f"1.{row:03},5"}, "number", "written 1.234,5", [1003.5, 1004.5, 1005.5]),
    "commas of thousands": ({"age": lambda row: f"{row},000"}, "number", "written 1,234.5", [3000.0, 4000.0, 5000.0]),
    "dates of Germany": ({"age": lambda row: f"{1 + row % 28:02}.03.1970"}, "date", "", [62.0, 63.0, 64.0]),
    "dates of America": ({"age": lambda row: f"03/{1 + row % 28:02}/1970"}, "date", "month/day/year", [62.0, 63, 64]),
    "moments": ({"age": lambda row: f"1970-01-02 {row % 24:02}:00:00"}, "date", "", [1.125, 1 + 4 / 24, 1 + 5 / 24]),
    "an identifier": ({"age": lambda row: str(1000 - row)}, "number", "as an identifier", [997.0, 996.0, 995.0]),
    "letters of Latin-1": ({"age": lambda row: ["grün", "blau"][row // 2 % 2]}, "word", "not UTF-8", [2.0, 1.0, 1.0]),
    "a quoted new line": ({"age": lambda row: ['"a\nb"', "c"][row // 2 % 2]}, "word", "", [2.0, 1.0, 1.0]),
    "a quote within a cell": ({"age": lambda row: ['5" pipe', "c"][row // 2 % 2]}, "word", "", [2.0, 1.0, 1.0]),
    "true and false": ({"age": lambda row: ["TRUE", "False", ""][row % 3]}, "yes/no", "", [1.0, 0.0, None]),
    DISGUISED: ({"age": lambda row: "12"[cells(row)["income"] == ">50K"]}, "number", DISGUISED, []),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDLED)
def test_what_a_column_has_is_handled_and_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns, kind, told, values = HANDLED[name]
    content = changed(**columns)
    encoding = "latin-1" if "Latin" in name else "utf-8"
    with caplog.at_level(logging.INFO):
        data = read(written(tmp_path, content.encode(encoding)))
    assert kinds(data)["age"] == kind
    assert told in caplog.text
    found = data.store.inputs[3:6, list(kinds(data)).index("age")]
    if kind == "word":  # codes are by how frequent a word is among the rows for training
        assert found[0] != found[1] == found[2]
        assert {float(each) for each in found} == {1.0, 2.0}
    elif values:
        assert found.tolist() == pytest.approx([math.nan if each is None else each for each in values], nan_ok=True)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (lambda _: "7", "column age: is constant, 7"),
        (lambda row: f"name {row}", "column age: hardly any word is in 3 rows"),
        (lambda _: "", "left out, nothing in it but missing cells"),
    ],
)
def test_a_column_without_use_is_left_out_and_named(
    cell: Callable[[int], str], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        data = read(written(tmp_path, changed(age=cell)))
    assert "age" not in kinds(data)
    assert told in caplog.text


def test_a_sound_table_is_said_in_one_table_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(written(tmp_path, text()))
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert lines[0].endswith("4 columns of 30 training rows")
    assert [line.split()[:2] for line in lines[2:]] == [
        ["age", "number"],
        ["city", "word"],
        ["member", "yes/no"],
        ["since", "date"],
    ]


def test_kinds_can_be_chosen(tmp_path: Path) -> None:
    path = written(tmp_path, text())
    data = read(path, columns={"age": "word", "member": "word", "since": "ignore"})
    assert kinds(data) == {"age": "word", "city": "word", "member": "word"}
    assert set(schema(data).columns[0].words) <= {str(20 + each) for each in range(7)}
    for columns, told in (
        ({"ag": "word"}, "columns={ag: word}: .* did you mean age"),
        ({"age": "integer"}, "columns={age: integer}: must be one of number, word, yes/no, date, ignore"),
        ({"city": "number"}, "columns={city: number}: none of its cells is one, as"),
        ({"income": "word"}, "columns={income: word}: there is no such column besides the target"),
    ):
        with pytest.raises(ValueError, match=told):
            read(path, columns=columns)


def test_words_get_their_codes_from_training_rows_alone(tmp_path: Path) -> None:
    rare = {3: "Bonn", 8: "Bonn", 12: "Riga"}
    train = written(tmp_path, changed(city=lambda row: rare.get(row, cells(row)["city"])))
    test = written(tmp_path, changed(city=lambda row: "Paris" if row else "Oslo"), "test.csv")
    data = read(train, test_path=str(test))
    words = schema(data).columns[1].words
    assert set(words) == set(CITIES)
    city = data.store.inputs[:, 1]
    assert {row for row in range(ROWS) if city[row] == 0} == set(rare)  # seen, and too seldom
    assert city[ROWS] == 1 + words.index("Oslo")
    assert (city[ROWS + 1 :] == 0).all()
    assert data.test_rows.tolist() == list(range(ROWS, 2 * ROWS))
    assert data.source(ROWS) == "test.csv row 1"


def test_rows_without_a_class_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = read(written(tmp_path, changed(income=lambda row: "" if row % 8 == 0 else cells(row)["income"])))
    used = torch.cat([data.train_rows, data.test_rows]).tolist()
    assert sorted(used) == [row for row in range(ROWS) if row % 8]
    assert "5 of 40 rows have no income" in caplog.text


def test_classes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    data = read(written(tmp_path, changed(income=lambda row: str([10, 9, 2][row % 3]))))
    assert data.store.class_names == ("2", "9", "10")


def test_another_table_is_read_by_name(tmp_path: Path) -> None:
    columns = schema(read(written(tmp_path, text())))
    rows = [{"more": "x", **dict(reversed(cells(row).items()))} for row in range(ROWS)]
    found, notes = columns.rows(read_frame(written(tmp_path, text(rows), "new.csv")), name="new.csv")
    expected, _ = columns.rows(read_frame(tmp_path / "table.csv"), name="table.csv")
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert not notes
    for row in rows:
        del row["city"]
    with pytest.raises(ValueError, match=r"new.csv: lacks the column city; must have all"):
        columns.rows(read_frame(written(tmp_path, text(rows), "new.csv")), name="new.csv")


def test_what_columns_are_can_be_written_and_read(tmp_path: Path) -> None:
    columns = schema(read(written(tmp_path, text())))
    assert Columns.from_described(columns.described()) == columns
    for wrong in (
        {"columns": [], "target": "y"},
        {"columns": [{"name": "a", "kind": "b", "words": []}], "target": "y"},
    ):
        with pytest.raises(ValueError, match="column"):
            Columns.from_described(wrong)


def test_values_are_told_as_they_were_written(tmp_path: Path) -> None:
    data = read(written(tmp_path, text()))
    for row in range(ROWS):
        told = dict(zip(schema(data).names, schema(data).cells(data.store.inputs[row]), strict=True))
        own = {name: "" if cell == "NA" else cell for name, cell in cells(row).items() if name != "income"}
        assert told == own
    assert Column("a", "word", words=("x",)).cell(0.0) == "(another word)"
    assert Column("a", "date").cell(1.5) == "1970-01-02 12:00:00"
    assert Column("a", "number").cell(0.1 + 0.2) == "0.3"


def test_a_number_written_with_a_comma_stays_one_in_another_table() -> None:
    column = Column("a", "number", form="1.234,5")
    assert column.values(polars.Series(["1.234", "2,5", "x"])).to_list() == [1234.0, 2.5, None]
    assert column.values(polars.Series(["1.234"])).to_list() == [1234.0]


def test_options_of_every_data_set_leave_the_columns(tmp_path: Path) -> None:
    data = read(written(tmp_path, text()))
    assert varied(data, train_fraction=0.5).store.columns == data.store.columns


def test_numbers_are_standardised_by_what_half_of_the_training_rows_have(tmp_path: Path) -> None:
    data = read(written(tmp_path, changed(age=lambda row: "1e29" if row == 4 else str(row % 9))))
    data.store.normalise_by(data.train_rows)
    taken = data.store.take(torch.arange(ROWS), dtype=torch.float32)
    ages = taken[torch.arange(ROWS) != 4, 0]
    assert len(ages.unique()) == 9
    assert 0.5 < ages.std() < 2
    assert taken[:, 1].equal(data.store.inputs[:, 1].float()) or taken[:, 1].isnan().any()
    torch.testing.assert_close(taken[:, 1].double(), data.store.inputs[:, 1], equal_nan=True)  # codes are no amounts
