"""``memlab report``: rows, tables and pictures of runs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from memlab.__main__ import main
from memlab.runs.report import ensembles
from memlab.runs.report.collect import Run, find_runs, rows_of
from memlab.runs.report.passage import BEGIN, END
from memlab.runs.report.tables import HEADINGS, MISSING, cells, comma_separated, latex, markdown, table_1
from memlab.runs.results import read_confusion, write_confusion, write_predictions, write_results
from tests.conftest import SMOKE, Outcome


def run(
    root: Path,
    name: str,
    accuracy: float,
    *,
    data: str = "mnist",
    encoder: str = "conv",
    memory: str = "full",
    seed: int = 0,
    support: int = 500,
    validation: float = 0.9,
    words: tuple[str, ...] = (),
    **baselines: float,
) -> Path:
    """A run folder as train.py leaves it."""
    folder = root / name
    folder.mkdir(parents=True)
    results = {
        "test/accuracy": accuracy,
        "data": data,
        "choices": {"data": data, "encoder": encoder, "memory": memory, "experiment": None},
        "overrides": [f"data={data}", f"encoder={encoder}", f"memory={memory}", *words, f"seed={seed}"],
        "sizes": {"train": 100, "test": 10, "batch": 10, "support": support},
        "epochs": 2,
        "best_epoch": 2,
        "seed": seed,
        "device": "cpu",
        "machine": "2 cores, some processor",
        "fit_seconds": 10.0 + seed,
        "peak_memory_bytes": 2**20 * (100 + seed),
        "baselines": {key: {"title": key, "accuracy": value, "seconds": 1.0} for key, value in baselines.items()},
    }
    write_results(folder, results)
    write_confusion(folder, ["no", "yes"], np.array([[3 + seed, 1], [0, 6]]))
    (folder / "metrics.csv").write_text(
        "epoch,train/accuracy,validation/accuracy,test/accuracy\n"
        f"0,0.4,,\n0,,0.5,0.5\n1,0.6,,\n1,,{validation},{accuracy}\n"
    )
    return folder


def answered(folder: Path, mass: list[list[float]], *, truth: list[int], first: int = 0) -> None:
    """Leave what a run has answered to its test objects."""
    answers, names = [row.index(max(row)) for row in mass], ["no", "yes", "maybe"][: len(mass[0])]
    words: dict[str, Any] = {"ids": range(first, first + len(mass)), "sources": [""] * len(mass)}
    write_predictions(folder, names, truth=truth, answers=answers, mass=np.array(mass, np.float32), **words)


def found(root: Path) -> list[Run]:
    runs, unfinished = find_runs([root])
    assert not unfinished
    return runs


class TestRows:
    def test_runs_that_differ_in_the_seed_alone_are_one_row(self, tmp_path: Path) -> None:
        for seed, accuracy in enumerate((0.9, 0.92, 0.97)):
            run(tmp_path, f"{seed}", accuracy, seed=seed, words=("data.root=/somewhere", "optimizer.lr=0.1"))
        run(tmp_path, "other rate", 0.5, words=("optimizer.lr=0.2",))
        run(tmp_path, "other M", 0.6, support=100, words=("optimizer.lr=0.1",))
        first, second, third = rows_of(found(tmp_path))
        assert (len(first.runs), len(second.runs), len(third.runs)) == (3, 1, 1)
        assert first.mean == pytest.approx(mean([0.9, 0.92, 0.97]))
        assert first.deviation == pytest.approx(stdev([0.9, 0.92, 0.97]))
        assert second.deviation is None
        assert first.seconds == pytest.approx(11)
        assert first.peak_bytes == 102 * 2**20
        assert first.command == "python train.py data=mnist encoder=conv memory=full optimizer.lr=0.1"
        assert "optimizer.lr=0.1" in first.method
        assert "somewhere" not in first.method

    def test_baselines_beside_several_runs_are_one_row(self, tmp_path: Path) -> None:
        for seed in range(2):
            run(tmp_path, f"{seed}", 0.9, seed=seed, knn_pixels=0.7, knn_embedding=0.8 + 0.1 * seed)
        rows = {row.key: row for row in rows_of(found(tmp_path))}
        assert rows["knn_pixels"].accuracies == [0.7]
        assert rows["knn_embedding"].accuracies == [0.8, 0.9]
        assert rows["knn_pixels"].epochs is None

    def test_folders_below_are_searched_and_unfinished_ones_told(self, tmp_path: Path) -> None:
        run(tmp_path, "sweep/0", 0.9)
        (tmp_path / "sweep/1").mkdir()
        (tmp_path / "sweep/1/config.yaml").touch()
        runs, unfinished = find_runs([tmp_path])
        assert [each.folder.name for each in runs] == ["0"]
        assert [folder.name for folder in unfinished] == ["1"]


class TestTables:
    def test_published_figures_stand_beside_what_they_are_comparable_with(self, tmp_path: Path) -> None:
        run(tmp_path, "0", 0.99)
        run(tmp_path, "1", 0.98, memory="linear", support=0)
        run(tmp_path, "2", 0.6, data="pictures", encoder="resnet")
        rows = rows_of(found(tmp_path))
        lines = {line[1]: dict(zip(HEADINGS, line, strict=True)) for line in cells(rows, {"pictures": "cifar10"})}
        conv, layer = lines["conv encoder, full memory"], lines["conv encoder, linear memory"]
        resnet = lines["resnet encoder, full memory"]
        assert (conv["test accuracy, %"], conv["thesis, %"], conv["M"]) == ("99.00", "98.87", "500")
        assert conv["published relative, %"].startswith("99.5")
        assert (layer["thesis, %"], layer["M"]) == ("-", "-")
        assert resnet["published relative, %"].startswith("90.7")
        (plain,) = (line for line in cells(rows, {}) if line[1].startswith("resnet"))
        assert plain[HEADINGS.index("published relative, %")] == "-"

    def test_cells_of_table_1_without_a_run_stay_missing(self, tmp_path: Path) -> None:
        run(tmp_path, "worse by validation", 0.995, validation=0.8, words=("optimizer.lr=1",))
        run(tmp_path, "better by validation", 0.985, validation=0.95, knn_tangent=0.988)
        run(tmp_path, "no objects", 0.999, memory="linear", encoder="linear", support=0)
        run(tmp_path, "pictures", 0.4, data="pictures", encoder="linear")
        knn, linear, conv = table_1(rows_of(found(tmp_path)), {"pictures": "cifar10"})
        assert knn[1] == "98.80 (thesis 98.90)"
        assert knn[2] == f"{MISSING} (thesis 41.78)"
        assert linear[1] == f"{MISSING} (thesis 97.76)"
        assert linear[2] == "40.00, pictures (thesis 38.55)"
        assert conv[1] == "98.50 (thesis 98.87)"
        assert conv[3] == f"{MISSING} (thesis 31.70)"

    def test_formats(self) -> None:
        headings, lines = ["a_b", "c, %"], [["x|y", "1 ± 2"], ["a, b", "3"]]
        assert markdown(headings, lines).splitlines()[2] == "| x\\|y | 1 ± 2 |"
        assert list(csv.reader(comma_separated(headings, lines).splitlines())) == [headings, *lines]
        text = latex(headings, lines)
        assert "a\\_b & c, \\%" in text
        assert "x|y & 1 $\\pm$ 2" in text
        assert text.count("\\\\") == 3


class TestEnsembles:
    def test_figures_are_those_of_the_mean_of_the_masses(self, tmp_path: Path) -> None:
        truth = [0, 1, 1, 0, 1]
        masses = [[[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8]]]
        masses.append([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.5, 0.5], [0.6, 0.4]])
        for seed, mass in enumerate(masses):
            answered(run(tmp_path, f"{seed}", 0.5, seed=seed), mass, truth=truth)
        answered(run(tmp_path, "alone", 0.5, support=100), masses[0], truth=truth)
        (each,) = ensembles.ensembles_of(rows_of(found(tmp_path)))
        mean_mass = [[mean(pair) for pair in zip(*rows, strict=True)] for rows in zip(*masses, strict=True)]
        for figures, mass in zip((*each.single, each.together), (*masses, mean_mass), strict=True):
            right = [row[label] == max(row) for row, label in zip(mass, truth, strict=True)]
            assert figures.accuracy == pytest.approx(mean(right))
            assert figures.nll == pytest.approx(-mean(math.log(row[y]) for row, y in zip(mass, truth, strict=True)))
            own, others = ([row[1] for row, y in zip(mass, truth, strict=True) if y == label] for label in (1, 0))
            won = [(a > b) + (a == b) / 2 for a in own for b in others]
            assert figures.auroc == pytest.approx(mean(won), abs=1e-6)
        one_by_one, together = (dict(zip(ensembles.HEADINGS, line, strict=True)) for line in ensembles.cells([each]))
        assert (one_by_one["runs"], one_by_one["test accuracy, %"]) == ("2", "70.00 ± 14.14")
        assert (together["test accuracy, %"], together["AUROC"]) == ("80.00", "0.9167")

    def test_of_more_than_two_classes_there_is_no_auroc(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            answered(run(tmp_path, f"{seed}", 0.5, seed=seed), [[0.2, 0.3, 0.5], [0, 0, 1]], truth=[2, 0])
        lines = ensembles.cells(ensembles.ensembles_of(rows_of(found(tmp_path))))
        assert [line[-1] for line in lines] == ["-", "-"]
        assert all(math.isfinite(float(line[-2].split(" ")[0])) for line in lines)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({"first": 1}, "have other test objects or classes; must have been tested on the same"),
            ({"truth": [1, 1]}, "have other test objects or classes; must have been tested on the same"),
            ({"support": 100}, "--ensemble: no two runs differ in the seed alone; must be given such, as of -m seed="),
            ({"mass": None}, "1 lacks predictions.csv; must have what was answered"),
        ],
    )
    def test_runs_that_cannot_answer_together_are_one_line(
        self, words: dict[str, Any], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        mass = [[0.3, 0.7], [0.6, 0.4]]
        answered(run(tmp_path, "runs/0", 0.5), mass, truth=[0, 1])
        other = run(tmp_path, "runs/1", 0.5, seed=1, support=words.pop("support", 500))
        if words.pop("mass", mass):
            answered(other, mass, **{"truth": [0, 1], **words})
        assert main(["report", str(tmp_path / "runs"), "--ensemble", "--output", str(tmp_path / "report")]) == 1
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "report").exists()


def test_confusion_is_written_and_read(tmp_path: Path) -> None:
    counts = np.array([[3, 1], [0, 6]])
    write_confusion(tmp_path, ["a, b", "c"], counts)
    names, read = read_confusion(tmp_path)
    assert names == ["a, b", "c"]
    np.testing.assert_array_equal(read, counts)


class TestCommand:
    def test_into_a_file_again_and_again(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        assert command(*SMOKE, "hydra.run.dir=run").status == 0
        page = tmp_path / "page.md"
        page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
        for number in (1, 2):
            assert main(["report", "run", "--into", "page.md", "--output", f"report{number}"]) == 0
            text = (tmp_path / f"report{number}" / "report.md").read_text()
            assert page.read_text() == f"before\n{BEGIN}\n\n{text}\n{END}\nafter\n"

    @pytest.mark.parametrize("text", [None, "", f"{END}\n{BEGIN}\n"])
    def test_a_file_without_a_place_for_it_is_refused_first(
        self, text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = tmp_path / "page.md"
        if text is not None:
            page.write_text(text)
        assert main(["report", str(tmp_path), "--into", str(page)]) == 1
        assert capsys.readouterr().err.startswith(f"error: --into {page}: ")

    def test_of_real_runs(self, command: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]) -> None:
        for seed in (0, 1):
            words = ("support.size=50", "baselines=[knn_pixels,knn_embedding]")
            assert command(*SMOKE, f"seed={seed}", f"hydra.run.dir=runs/{seed}", *words).status == 0
        assert command(*SMOKE, "memory=linear", "hydra.run.dir=runs/layer").status == 0
        assert main(["report", "runs", "--ensemble", "--output", "report"]) == 0
        folder = Path("report")
        lines = list(csv.DictReader((folder / "report.csv").open()))
        results = [json.loads((Path("runs") / name / "results.json").read_text()) for name in ("0", "1", "layer")]
        (conv,) = (line for line in lines if line["M"] == "50")
        assert conv["seeds"] == "2"
        accuracies = [100 * each["test/accuracy"] for each in results[:2]]
        assert conv["test accuracy, %"] == f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}"
        one_by_one, together = csv.DictReader((folder / "ensembles.csv").open())
        assert one_by_one["test accuracy, %"] == conv["test accuracy, %"]
        assert float(together["NLL"]) <= mean(each["test/nll"] for each in results[:2])
        methods = {line["method"] for line in lines}
        assert methods >= {"conv encoder, linear memory, trainer=smoke", "kNN on raw inputs, k = 3"}
        text = (folder / "report.md").read_text()
        assert "python train.py trainer=smoke support.size=50" in text
        assert text in capfd.readouterr().out
        for picture in ("curves", "accuracy_by_support", "accuracy_by_time", "confusion"):
            assert matplotlib.image.imread(folder / f"{picture}.png").std() > 0.05
        _, counts = read_confusion(Path("runs/0"))
        assert counts.sum() == results[0]["sizes"]["test"]
        assert counts.trace() / counts.sum() == pytest.approx(results[0]["test/accuracy"])

    def test_unfinished_runs_are_named(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        run(tmp_path, "runs/0", 0.9)
        (tmp_path / "runs/1").mkdir()
        (tmp_path / "runs/1/config.yaml").touch()
        assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "report")]) == 0
        assert str(tmp_path / "runs/1") in capfd.readouterr().out

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda _: None, "there is no such folder"),
            (lambda root: (root / "runs").mkdir(), "holds no run"),
            (
                lambda root: run(root, "runs/0", 0.5).joinpath("results.json").rename(root / "runs/0/config.yaml"),
                "none",
            ),
            (lambda root: run(root, "report/0", 0.5), "must be a new or an empty folder"),
            (lambda root: _of_an_earlier_version(root), "lacks baselines, as those of earlier versions do"),
        ],
    )
    def test_mistakes_are_one_line(
        self, make: Callable[[Path], Any], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        make(tmp_path)
        assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "report")]) == 1
        error = capfd.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1

    def test_comparing_with_a_set_that_there_is_not(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["report", "runs", "--compare", "mine=imagenet"])
        assert "mine=imagenet: must be NAME=SET, SET of mnist, cifar10, cifar100" in capfd.readouterr().err


def _of_an_earlier_version(root: Path) -> None:
    file = run(root, "runs/0", 0.5) / "results.json"
    results = json.loads(file.read_text())
    del results["baselines"]
    file.write_text(json.dumps(results))
