"""``memlab report`` of networks over stories: starts, baselines, errors by task, and classifiers beside them."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from memlab.__main__ import main
from memlab.runs.published_answers import FAILED, published_of
from memlab.runs.report import questions
from memlab.runs.report.collect import Run
from memlab.runs.results import write_results
from tests.runs.test_report import run as classifier

NAME = "bAbI 1k, tasks 1-20"


def start(root: Path, name: str, *, loss: float, errors: dict[str, float], seed: int = 0, **more: Any) -> Run:
    """A run of a network over stories as train.py leaves it."""
    memory = more.pop("memory", "memn2n")
    results = {
        "task": "questions",
        "test/error": mean(errors.values()),
        "failed": sum(error > 0.05 for error in errors.values()),
        "tasks": {task: {"questions": 100, "error": error, "failed": error > 0.05} for task, error in errors.items()},
        "train/loss": loss,
        "data": NAME,
        "choices": {"data": "babi", "memory": memory, "experiment": None},
        "overrides": ["task=questions", f"memory={memory}", f"seed={seed}", *more.pop("words", [])],
        "sizes": {"train": 900, "validation": 100, "test": 200, "stories": 300},
        "epochs": 60,
        "best_epoch": 50,
        "seed": seed,
        "device": "cpu",
        "machine": "2 cores, some processor",
        "fit_seconds": 10.0 + seed,
        "peak_memory_bytes": 2**20 * (100 + seed),
        "baselines": {
            "bag_of_words": {"title": "bag", "error": 0.5, "tasks": dict.fromkeys(errors, 0.5), "seconds": 2}
        },
        **more,
    }
    (root / name).mkdir(parents=True)
    write_results(root / name, results)
    return Run(root / name, results)


class TestRows:
    def test_starts_are_a_row_whose_best_is_by_training_loss(self, tmp_path: Path) -> None:
        found = [(0.5, 0.2), (0.3, 0.26), (0.4, 0.1)]
        runs = [
            start(tmp_path, str(seed), loss=loss, errors={"qa1": 0.0, "qa2": 2 * error}, seed=seed)
            for seed, (loss, error) in enumerate(found)
        ]
        runs.append(start(tmp_path, "other", loss=0.1, errors={"qa1": 0.04, "qa2": 0.0}, words=["memory.hops=1"]))
        first, second, bag = questions.rows_of(runs)
        assert (first.method, second.method, bag.method) == ("memn2n, memory.hops=1", "memn2n", "bag")
        errors = [error for _, error in found]
        assert second.errors == pytest.approx(errors)
        assert second.best == 1
        spread = f"{100 * mean(errors):.1f} ± {100 * stdev(errors):.1f} (1)"
        line = questions.cells([second])[0]
        assert line[:5] == [NAME, "memn2n", "3", "26.0 (1)", spread]
        assert line[5].startswith("12.4 (11)")
        assert line[6:] == ["60", "11", "102"]
        headings, lines = questions.by_task([first, second, bag], NAME)
        assert headings == ["task", "memn2n, memory.hops=1", "published", "memn2n", "published", "bag"]
        assert lines == [
            ["qa1", "4.0", "0.0", "0.0", "0.0", "50.0"],
            ["qa2", "0.0", "11.4", "52.0", "11.4", "50.0"],
        ]

    def test_what_was_taken_of_the_smaller_set_stands_in_the_name(self, tmp_path: Path) -> None:
        run = start(tmp_path, "0", loss=1.0, errors={"qa1": 0.0}, memory="items")
        run.results["data"] = "bAbI 10k, tasks 1-20 with 1k of task 3"
        row = questions.rows_of([run])[0]
        assert row.data.endswith("with 1k of task 3")
        assert row.published is not None
        assert row.published.summary.startswith("1.34")


@pytest.mark.parametrize("memory", ["memn2n", "memnn"])
def test_published_errors_of_the_tasks_have_the_published_mean(memory: str) -> None:
    published = published_of(memory, NAME)
    assert published is not None
    assert list(published.by_task) == [f"qa{number}" for number in range(1, 21)]
    found, failed = mean(published.by_task.values()), sum(each > 100 * FAILED for each in published.by_task.values())
    stated = re.match(r"(\S+) \((\d+)\)", published.summary)
    assert stated is not None
    assert found == pytest.approx(float(stated[1]), abs=0.0501)
    assert failed == int(stated[2])


def test_both_tasks_in_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path / "runs", "asked", loss=1.0, errors={"qa1": 0.25})
    classifier(tmp_path / "runs", "classified", 0.9)
    assert main(["report", str(tmp_path / "runs"), f"--output={tmp_path / 'report'}"]) == 0
    printed = capsys.readouterr().out
    assert "conv encoder, full memory" in printed
    assert "| qa1 | 25.0 | 0.0 | 50.0 |" in printed
    with (tmp_path / "report" / "questions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["memn2n", "bag"]
    assert (tmp_path / "report" / "report.csv").is_file()


def test_questions_alone(tmp_path: Path) -> None:
    start(tmp_path / "runs", "asked", loss=1.0, errors={"qa1": 0.25})
    assert main(["report", str(tmp_path / "runs"), f"--output={tmp_path / 'report'}"]) == 0
    written = {file.name for file in (tmp_path / "report").iterdir()}
    assert written == {"report.md", "questions.csv", "questions.tex"}
