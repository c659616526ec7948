from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import matplotlib.image
import pytest
from rich.console import Console

from memlab.runs.failure import note_failure
from memlab.runs.figures import HeatMap, draw_heat_maps
from memlab.runs.results import write_results
from memlab.runs.sweep import Job, read_job, report, values_in_order, varied_parameters
from memlab.signals import TRY_AGAIN
from tests.conftest import SMOKE, Outcome
from tests.processes import Kill, start, status_of

BY = "validation/accuracy"


def job(name: str, accuracy: float | None, **overrides: str) -> Job:
    results = {"test/accuracy": accuracy, "test/nll": 0.5, "test/ece": 0.01, "fit_seconds": 3.0, BY: accuracy}
    given = {parameter.replace("__", "."): value for parameter, value in overrides.items()}
    return Job(name, given, results if accuracy is not None else None, "" if accuracy is not None else "no memory")


JOBS = [
    job("0", 0.8, support__size="1000", optimizer__lr="1e-3", seed="0"),
    job("1", 0.9, support__size="300", optimizer__lr="1e-3", seed="0"),
    job("2", None, support__size="1000", optimizer__lr="3e-3", seed="0"),
    job("3", 0.7, support__size="300", optimizer__lr="3e-3", seed="0"),
]


def test_report_ranks_the_jobs_and_names_the_failures(tmp_path: Path) -> None:
    printed = io.StringIO()
    report(JOBS, tmp_path, Console(file=printed, width=100), by=BY)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["job"] for row in rows] == ["1", "0", "3", "2"]
    assert rows[0] | {"support.size": "300", "optimizer.lr": "1e-3", "test/accuracy": "0.9", "failure": ""} == rows[0]
    assert rows[3]["failure"] == "no memory"
    assert "seed" not in rows[0]
    text = printed.getvalue()
    assert text.index("90.00%") < text.index("80.00%") < text.index("70.00%") < text.index("failed")
    assert "job 2 failed: no memory" in text
    assert matplotlib.image.imread(tmp_path / "heat_map.png").std() > 0.05


def test_jobs_are_ranked_by_validation_and_not_by_the_test(tmp_path: Path) -> None:
    jobs = [job("0", 0.8, seed="0"), job("1", 0.9, seed="1"), job("2", 0.7, seed="2")]
    for each, nll in zip(jobs, (0.2, 0.3, 0.1), strict=True):
        assert each.results is not None
        each.results["validation/nll"] = nll
    del jobs[0].results["validation/nll"]  # type: ignore[union-attr]
    report(jobs, tmp_path, Console(file=io.StringIO()), by="validation/nll")
    assert [row["job"] for row in csv.DictReader((tmp_path / "sweep.csv").open())] == ["2", "1", "0"]


def test_figures_are_whole_on_a_narrow_screen(tmp_path: Path) -> None:
    printed = io.StringIO()
    report(JOBS, tmp_path, Console(file=printed, width=20), by=BY)
    for figure in ("90.00%", "0.5000", "1.00%", "support.size", "test accuracy"):
        assert figure in printed.getvalue()


def test_recall_has_a_column_and_a_map_where_a_job_has_it_and_seeds_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    for number in range(8):
        k, every, seed = number & 1, number >> 1 & 1, number >> 2
        each = job(str(number), 0.5 + 0.1 * number, memory__k=str(k), memory__refresh_every=str(every), seed=str(seed))
        assert each.results is not None
        each.results["validation/recall"] = 0.9 + 0.01 * seed
        jobs.append(each)
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("memlab.runs.sweep.draw_heat_maps", lambda maps, *_, **words: drawn.update(words, maps=maps))
    printed = io.StringIO()
    report(jobs, tmp_path, Console(file=printed, width=120), by=BY)
    assert "recall@K" in printed.getvalue()
    assert next(csv.DictReader((tmp_path / "sweep.csv").open()))["validation/recall"] == "0.91"
    assert (drawn["rows"][0], drawn["columns"][0]) == ("memory.k", "memory.refresh_every")
    accuracy, recall, seconds = drawn["maps"]
    assert accuracy.values == pytest.approx({("0", "0"): 0.7, ("1", "0"): 0.8, ("0", "1"): 0.9, ("1", "1"): 1.0})
    assert set(recall.values.values()) == {0.905}
    assert [seconds.text(value) for value in seconds.values.values()] == ["3 s"] * 4


def test_there_is_a_heat_map_only_for_two_parameters(tmp_path: Path) -> None:
    report([JOBS[0], JOBS[1]], tmp_path, Console(file=io.StringIO()), by=BY)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.csv"]


def test_values_are_in_the_order_of_their_size_and_words_as_given() -> None:
    assert varied_parameters(JOBS) == ["support.size", "optimizer.lr"]
    assert values_in_order(JOBS, "support.size") == ["300", "1000"]
    assert values_in_order([job("0", 0.1, encoder="mlp"), job("1", 0.1, encoder="conv")], "encoder") == ["mlp", "conv"]


def test_heat_map_of_failures_alone_can_be_drawn(tmp_path: Path) -> None:
    nothing = HeatMap("accuracy", {}, str)
    draw_heat_maps([nothing, nothing], tmp_path / "map.png", rows=("a", ["1", "2"]), columns=("b", ["1"]))
    assert (tmp_path / "map.png").is_file()


def test_a_job_is_read_back_from_its_folder(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        (tmp_path / name).mkdir()
    write_results(tmp_path / "0", {"overrides": ["support.size=5", "a=b=c"], "test/accuracy": 0.5})
    note_failure(
        tmp_path / "1", overrides=["support.size=0", "sweep.jobs=2", "resume=sweep"], reason="must be at least 1"
    )
    assert read_job(tmp_path / "0").overrides == {"support.size": "5", "a": "b=c"}
    assert read_job(tmp_path / "1") == Job("1", {"support.size": "0"}, None, "must be at least 1")
    assert read_job(tmp_path / "2") == Job("2", {}, None, "ended without results")


def test_a_real_sweep_ends_with_table_and_heat_map(command: Callable[..., Outcome]) -> None:
    outcome = command("-m", "support.size=100,300", "optimizer.lr=1e-3,3e-3", *SMOKE)
    assert outcome.status == 0, outcome.err
    (sweep,) = outcome.run_folders
    assert {entry.name for entry in sweep.iterdir()} == {
        "0",
        "1",
        "2",
        "3",
        "multirun.yaml",
        "sweep.csv",
        "heat_map.png",
    }
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    found = [float(row["validation/nll"]) for row in rows]
    assert found == sorted(found)
    assert {(row["support.size"], row["optimizer.lr"]) for row in rows} == {
        (size, rate) for size in ("100", "300") for rate in ("0.001", "0.003")
    }
    assert "sweep, best validation/nll first" in outcome.out


@pytest.mark.stress
def test_sweep_that_is_ended_and_killed_within_jobs_comes_to_the_table_of_one_that_is_not(tmp_path: Path) -> None:
    words = [
        *("-m", "trainer.max_epochs=1", "encoder=linear", "encoder.embedding_size=8", "data.train_fraction=0.3"),
        *("baselines=[]", "figures=false", "trainer.enable_progress_bar=false"),
        *("optimizer.lr=1e-3,3e-3,1e-2", "seed=0,1", "hydra.sweep.dir=sweep"),
    ]
    tables = []
    for name, kills in {
        "straight": [],
        "disturbed": [Kill("on_train_batch_start", 10, SIGTERM), Kill("on_train_batch_start", 12, SIGKILL)],
    }.items():
        folder, typed = tmp_path / name, words
        folder.mkdir()
        for kill in kills:
            assert status_of(start(*typed, folder=folder, kill=kill)) in (TRY_AGAIN, -SIGKILL)
            assert not (folder / "sweep" / "sweep.csv").exists()
            typed = ["-m", "resume=sweep"]
        assert status_of(start(*typed, folder=folder)) == 0, (folder / "said.txt").read_text()
        with (folder / "sweep" / "sweep.csv").open(newline="") as file:
            tables.append([{name: row[name] for name in row if name != "fit_seconds"} for row in csv.DictReader(file)])
        assert len(tables[-1]) == 6
    assert "go on with python train.py -m resume=sweep" in (tmp_path / "disturbed" / "said.txt").read_text()
    assert tables[0] == tables[1]
