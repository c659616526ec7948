"""A table from its file to answers on another: in the commands that people type."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import memlab
from memlab.trained import RefusedMemoryError, load
from tests.conftest import REPOSITORY, SMOKE, Command, Outcome
from tests.data.files_of_tables import rows, write_table
from tests.runs.test_trained_memory import WHOLE_TEST, equal, told

pytest.importorskip("polars")
TABLE = ("data=table", "data.path=mine.csv", "data.target=class")


@pytest.fixture
def run(command: Callable[..., Outcome], tmp_path: Path) -> Path:
    write_table(tmp_path / "mine.csv")
    outcome = command(*WHOLE_TEST, *TABLE, "trainer.max_epochs=8", "figures=true")
    assert outcome.status == 0, outcome.err
    assert "TABLE.csv" in outcome.out
    return outcome.run_folders[0]


def answers(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_learns_and_answers_what_the_run_tested_to_the_bit(run: Path, tmp_path: Path) -> None:
    ids, labels, mass = told(run)
    memory = memlab.load(run)
    assert memory.kind.columns is not None
    given = rows(400)
    cells = [[given[place][column.name] for column in memory.kind.columns.columns] for place in ids]
    assert equal(memory.predict(cells), labels, mass)
    assert memory.info["test/accuracy"] > 0.85
    whole = memory.predict(tmp_path / "mine.csv")
    assert [whole.labels[place] for place in ids] == labels
    frame = {name: [row[name] for row in given] for name in reversed(given[0])}
    assert memory.predict(frame).labels == whole.labels
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    assert memory.predict(pandas.DataFrame(frame)).labels == whole.labels
    assert memory.predict(polars.DataFrame(frame)).labels == whole.labels
    for wrong in ([["1", "2"]], [3], "none.csv"):
        with pytest.raises(ValueError, match=r"inputs|must be|cannot be read"):
            memory.predict(wrong)


def test_a_new_file_is_read_by_names_in_a_process_of_its_own(run: Path, tmp_path: Path) -> None:
    given = [{"note": "x", **dict(reversed(row.items()))} for row in rows(30, seed=1)]
    for row in given:
        del row["class"]
    given[0]["job"], given[1]["age"] = "astronaut", "old"
    write_table(tmp_path / "new.csv", given)
    words = [sys.executable, "-m", "memlab", "predict", str(run), "new.csv", "--csv", "out.csv"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert process.stderr == "warning: new.csv: column age has 1 cells that are no number, as old; taken as missing\n"
    found = answers(tmp_path / "out.csv")
    truth = [row["class"] for row in rows(30, seed=1)]
    assert [row["input"] for row in found] == [f"new.csv row {place + 1}" for place in range(30)]
    assert np.mean([row["label"] == each for row, each in zip(found, truth, strict=True)]) > 0.8
    for row in given:
        del row["since"]
    write_table(tmp_path / "new.csv", given)
    process = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    line = "error: new.csv: lacks the column since; must have all that were trained on\n"
    assert (process.returncode, process.stderr) == (1, line)


def test_evidence_is_shown_by_the_columns_that_differ(run: Path, memlab: Command, tmp_path: Path) -> None:
    given = rows(1, seed=3)
    write_table(tmp_path / "new.csv", given)
    status, out, _ = memlab("predict", run, tmp_path / "new.csv", "--k", "3", "--json")
    (answer,) = json.loads(out)
    assert status == 0
    status, _, _ = memlab("explain", run, tmp_path / "new.csv", "--k", "3", "--html", tmp_path / "page.html")
    assert status == 0
    page = (tmp_path / "page.html").read_text()
    table = page[page.index("<caption>Where they differ") : page.index("</article>")]
    stored = rows(400)
    assert [f"id {each['id']}" for each in answer["evidence"]] == re.findall(r"<th scope=\"col\">(id \d+)", table)
    for name in ("age", "job", "member", "since"):
        own = given[0][name].replace("?", "")
        others = [stored[each["id"]][name].replace("?", "") for each in answer["evidence"]]
        if set(others) == {own}:
            assert re.search(f"The same in all: [^.]*{name}", table)
            continue
        cells = [other if other == own else f"<mark>{other or 'missing'}</mark>" for other in others]
        assert f'<th scope="row">{name}</th>' + "".join(f"<td>{each}</td>" for each in (own, *cells)) in table
    memlab("predict", run, tmp_path / "new.csv", "--k", "3", "--csv", tmp_path / "out.csv")
    (line,) = answers(tmp_path / "out.csv")
    assert line["evidence"] == "|".join(str(each["id"]) for each in answer["evidence"])
    (folder,) = (run.parent).glob("*")
    assert "Where they differ" in (folder / "figures" / "evidence.html").read_text()


def test_other_commands_read_tables_too(run: Path, memlab: Command, tmp_path: Path) -> None:
    status, out, err = memlab("evaluate", run, tmp_path / "mine.csv", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["accuracy"] > 0.85
    status, _, err = memlab("evaluate", run, tmp_path / "mine.csv", "--target", "clas")
    assert status == 1
    assert "target=clas: " in err
    new = write_table(tmp_path / "new.csv", rows(5, seed=2))
    status, out, _ = memlab("add", run, new, "--label", "middle")
    assert status == 0
    status, out, _ = memlab("info", run)
    assert "a row with the columns age, job, member, since" in out


def test_an_encoder_of_numbers_alone_is_given_no_missing_cell(
    command: Callable[..., Outcome], memlab: Command, tmp_path: Path
) -> None:
    given = [{"age": str(20 + place % 50), "more": str(place % 7), "class": "ab"[place % 2]} for place in range(60)]
    write_table(tmp_path / "mine.csv", given)
    outcome = command(*SMOKE, *TABLE, "encoder=mlp")
    assert outcome.status == 0, outcome.err
    given[3]["more"] = ""
    status, _, err = memlab("predict", outcome.run_folders[0], write_table(tmp_path / "new.csv", given))
    assert status == 1
    assert "row 4: column more is missing, which it was nowhere in training; must be there" in err


def test_columns_and_encoder_must_belong_together(run: Path) -> None:
    manifest = run / "memory" / "memory.json"
    found = json.loads(manifest.read_text())
    found["model"]["columns"]["columns"][1]["words"].append("king")
    manifest.write_text(json.dumps(found))
    with pytest.raises(RefusedMemoryError, match="the encoder has other words than the columns"):
        load(run)


def test_several_kinds_of_training_take_tables(command: Callable[..., Outcome], tmp_path: Path) -> None:
    write_table(tmp_path / "mine.csv")
    for words in (
        ("memory=topk", "memory.k=8"),
        ("memory=chunked", "memory.chunk_size=50"),
        ("encoder.embedding=periodic", "encoder.numbers=standard", "encoder.blocks=1", "encoder.dropout=0.2"),
        ("encoder.embedding=none", "trainer.precision=64-true"),
        ("data.columns.age=word", "data.columns.since=ignore", "data.test_path=mine.csv"),
        ("encoder=mlp", "data.columns={age: ignore, job: ignore}", "baselines=[knn_pixels]"),
    ):
        outcome = command(*SMOKE, *TABLE, *words)
        assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.target=clas"], "target=clas: mine.csv has no such column in its first line; did you mean class?"),
        (["data.path=none.csv"], "data.path=none.csv: cannot be read (No such file or directory)"),
        (["data.test_path=mine.txt"], "data.test_path=mine.txt: must end in .csv, .tsv, .parquet, .xlsx"),
        (
            ["data.columns.ag=word"],
            "data.columns={ag: word}: there is no such column besides the target; did you",
        ),
        (["data.rare_below=0"], "data.rare_below=0: must be a whole number of at least 1"),
        (["encoder=mlp"], "encoder=MLP: takes numbers alone, and column age has missing values; use table"),
        (["encoder=mlp", "data.columns={age: ignore}"], "encoder=MLP: takes numbers alone, and column job has words"),
        (["encoder.numbers=log"], "encoder.numbers=log: must be one of quantile, standard"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: list[str], line: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    write_table(tmp_path / "mine.csv")
    outcome = command(*SMOKE, *TABLE, *words)
    assert outcome.status == 1
    assert line in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_run_of_a_table_goes_on_where_it_was_stopped(command: Callable[..., Outcome], tmp_path: Path) -> None:
    write_table(tmp_path / "mine.csv")
    words = [*WHOLE_TEST, *TABLE, "encoder.dropout=0.3", "data.columns.since=ignore", "scheduler=constant"]
    whole = command(*words, "trainer.max_epochs=2", "hydra.run.dir=outputs/whole")
    assert whole.status == 0, whole.err
    half = command(*words, "trainer.max_epochs=2", "trainer.max_steps=2", "hydra.run.dir=outputs/half")
    assert half.status == 0, half.err
    (tmp_path / "outputs" / "half" / "results.json").unlink()
    again = command("resume=outputs/half", "trainer.max_steps=null")
    assert again.status == 0, again.err
    found = [
        torch.load(tmp_path / "outputs" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "half")
    ]
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
