"""What the commands are given: tables of rows as well as files of arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Command
from tests.trained.memories import make, pictures, tables


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The same rows and classes as a table and as arrays, beside a memory of such rows in ``m``."""
    make(tmp_path / "m", tables())
    store = tables(12, seed=4)
    names = ["dog", *(store.class_names[label] for label in store.labels[1:].tolist())]
    np.savez(tmp_path / "rows.npz", X=store.inputs.numpy(), y=np.array(names))
    lines = ["a,b,c,d,e,kind"]
    lines += [",".join([*map(repr, row), name]) for row, name in zip(store.inputs.tolist(), names, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "only.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines[1:]))
    return tmp_path


def test_a_table_is_answered_as_the_same_arrays(rows: Path, memlab: Command) -> None:
    _, out, _ = memlab("predict", rows / "m", rows / "only.csv", "--json")
    _, wanted, _ = memlab("predict", rows / "m", rows / "rows.npz", "--json")
    ours, theirs = json.loads(out), json.loads(wanted)
    assert [row.pop("input") for row in ours] == [f"{rows / 'only.csv'} row {n}" for n in range(1, 13)]
    assert [row.pop("input") for row in theirs]
    assert ours == theirs

    _, out, _ = memlab("evaluate", rows / "m", rows / "rows.csv", "--target", "kind", "--json")
    assert json.loads(out) == json.loads(memlab("evaluate", rows / "m", rows / "rows.npz", "--json")[1])
    assert json.loads(out)["unknown"] == {"dog": 1}
    _, out, _ = memlab("evaluate", rows / "m", rows / "rows.csv", "--target", "6")
    assert "unknown_classes: 1\n" in out
    assert out.endswith("not known to the memory, and counted as answered wrong: dog (1)\n")

    added = json.loads(memlab("add", rows / "m", rows / "rows.csv", "--target", "kind", "--json")[1])
    assert added["objects"] == 60
    assert added["classes"][-1] == "dog"
    assert json.loads(memlab("add", rows / "m", rows / "only.csv", "--label", "eel", "--json")[1])["objects"] == 72


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", "m", "rows.csv"], "rows.csv: has 6 columns; must have 5"),
        (["evaluate", "m", "rows.csv"], "rows.csv: target must be given, the column that has the classes"),
        (["evaluate", "m", "rows.csv", "--target", "sort"], "target=sort: "),
        (["evaluate", "m", "rows.npz", "--target", "kind"], "target=kind: is for tables; rows.npz is none"),
        (["add", "m", "rows.csv"], "rows.csv: target must be given"),
        (["predict", "m", "only.csv", "rows.npz"], "must be given alone"),
        (["predict", "images", "only.csv"], "only.csv: a table has rows of numbers; must be a picture file"),
        (["predict", "m", "cut.csv"], "cut.csv: line 3, column 2 is empty; must be a finite number"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(
    words: list[str], told: str, rows: Path, memlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows)
    make(rows / "images", pictures())
    (rows / "cut.csv").write_text("1,2,3,4,5\n1,2,3,4,5\n1,,3,4,5\n")
    status, out, err = memlab(*words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert told in err
    assert len(err.splitlines()) == 1
