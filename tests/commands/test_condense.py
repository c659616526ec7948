"""``memlab condense`` on a memory of rows: the curve changes nothing, the rest does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from memlab.trained import load
from tests.conftest import Command
from tests.trained.memories import make, tables


def test_curve_then_a_new_folder_then_in_place(memlab: Command, tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables(250), batch_size=64)
    status, out, _ = memlab("condense", tmp_path / "m", "--curve", "--figure", tmp_path / "sizes.png", "--json")
    curve = json.loads(out)
    assert (status, [each["objects"] for each in curve]) == (0, [200, 100, 40, 20, 10, 4])
    assert Image.open(tmp_path / "sizes.png").width > 400
    assert load(tmp_path / "m").digest == memory.digest

    status, out, _ = memlab("condense", tmp_path / "m", "--keep", "0.1", "--into", tmp_path / "few", "--json")
    into = json.loads(out)
    assert (into["folder"], into["kept"], len(into["ids"])) == (str(tmp_path / "few"), 20, 180)
    assert (into["before"], into["after"]) == (curve[0], curve[3])
    assert load(tmp_path / "m").digest == memory.digest == into["digest_before"]

    status, out, _ = memlab("condense", tmp_path / "m", "--keep", 20, "--calibrate")
    lines = out.splitlines()
    assert lines[0] == f"20 objects kept, 180 left out: {tmp_path / 'm'}"
    assert [line.split()[0] for line in lines[1:6]] == ["before", "after", "temperature", "digest", "digest"]
    assert len([line for line in lines if line.startswith("not undone: ")]) == 3
    condensed = load(tmp_path / "m")
    assert condensed.digest == load(tmp_path / "few").digest == into["digest_after"]
    assert condensed.info["temperature"] == pytest.approx(float(lines[3].split()[1].rstrip(",")), rel=1e-3)
    assert "has forgotten 180 objects" in memlab("undo", tmp_path / "m")[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "keep: must be given, as --keep 0.1, or --curve"),
        (["--keep", "1.5"], "keep=1.5: must be a share above 0 and below 1"),
        (["--keep", "2"], "keep=2: must be a share"),
        (["--curve", "--into", "x"], "curve: changes and writes no memory"),
        (["--curve", "--calibrate"], "curve: changes and writes no memory"),
        (["--keep", "0.5", "--figure", "x.png"], "figure=x.png: is of the curve; must be given with --curve"),
        (["--curve", "--figure", "x.doc"], "figure=x.doc: no such kind of picture"),
        (["--curve", "--figure", "no/such/x.png"], "no/such/x.png: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], told: str, memlab: Command, tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables())
    status, out, err = memlab("condense", tmp_path / "m", *words)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {told}")
    assert len(err.splitlines()) == 1
    assert load(tmp_path / "m").digest == memory.digest


def test_what_is_no_number_is_told(memlab: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        memlab("condense", tmp_path, "--keep", "few")
    assert "few: must be a share, as 0.1, or a whole number, as 5000" in capfd.readouterr().err
