"""Methods on many tables: the same splits for all, figures by their definitions, and a file that is gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.metrics import log_loss as log_loss_of_scikit_learn

from memlab.__main__ import main
from memlab.benchmark.tables import fits, methods, own
from memlab.benchmark.tables import run as work
from memlab.benchmark.tables.cells import Cell, measure, measured_apart
from memlab.benchmark.tables.figures import LEAST, auroc, figures, log_loss
from memlab.benchmark.tables.fits import FITS, NEIGHBOURS, Fitted, fit_of
from memlab.benchmark.tables.given import GivenTable, find_tables
from memlab.benchmark.tables.methods import METHODS
from memlab.benchmark.tables.ranks import critical_difference, ranks, win_rates
from memlab.benchmark.tables.split import RARE_BELOW, Shares, Split
from memlab.trained import load
from tests.conftest import REPOSITORY, SHARED_DATA, SMOKE, Command, Outcome
from tests.data.files_of_tables import rows, write_table

pytest.importorskip("polars")
SHARES = Shares(64, 16, 20)
INSTALLED = [
    pytest.param(
        name, marks=pytest.mark.skipif(METHODS[name].version is None, reason=f"{METHODS[name].needs} is not here")
    )
    for name in FITS
]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Of a table with numbers, words, yes and no, dates and missing cells."""
    return Split.of(GivenTable("mine", write_table(tmp_path / "mine.csv"), "class"), SHARES, 3)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder of two small tables."""
    folder = tmp_path / "tables"
    folder.mkdir()
    write_table(folder / "one.csv", count=120)
    write_table(folder / "two.csv", rows(150, seed=1))
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Cells are measured in this process, and noted."""
    done: list[Cell] = []

    def measured(cell: Cell, _: Path) -> dict[str, Any]:
        done.append(cell)
        return measure(cell)

    monkeypatch.setattr(work, "measured_apart", measured)
    return done


def random_mass(count: int, classes: int, *, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Class mass with ties, and classes that have something to do with it."""
    generator = np.random.default_rng(seed)
    mass = generator.integers(1, 5, (count, classes)).astype(np.float64)
    mass /= mass.sum(axis=1, keepdims=True)
    noise = generator.random((count, classes))
    return mass, (mass + noise).argmax(axis=1)


class TestFigures:
    @pytest.mark.parametrize("classes", [2, 5])
    def test_are_those_of_scikit_learn(self, classes: int) -> None:
        mass, truth = random_mass(90, classes)
        told = figures(mass, truth)
        scores = mass[:, 1] if classes == 2 else mass
        assert told == pytest.approx(
            {
                "accuracy": accuracy_score(truth, mass.argmax(axis=1)),
                "log_loss": log_loss_of_scikit_learn(truth, mass),
                "auroc": roc_auc_score(truth, scores, multi_class="ovr"),
            },
            rel=1e-12,
        )

    def test_auroc_is_the_share_of_pairs_in_order(self) -> None:
        mass, truth = random_mass(40, 4)
        truth = np.where(truth == 3, 0, truth)  # a class without rows does not count
        shares = []
        for number in range(3):
            pairs = [
                (own > other) + (own == other) / 2
                for own in mass[truth == number, number]
                for other in mass[truth != number, number]
            ]
            shares.append(sum(pairs) / len(pairs))
        assert auroc(mass, truth) == pytest.approx(sum(shares) / 3, rel=1e-12)

    def test_no_mass_of_the_true_class_costs_a_limited_loss(self) -> None:
        assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(LEAST))


class TestRanks:
    VALUES = np.array([[0.9, 0.8, 0.9, 0.1], [0.5, 0.5, 0.5, np.nan], [0.3, 0.4, np.nan, np.nan], [0.2, 0.1, 0.3, 0.4]])

    def test_are_places_in_order_with_ties_shared(self) -> None:
        for line, found in zip(self.VALUES.tolist(), ranks(self.VALUES).tolist(), strict=True):
            known = [-1.0 if value != value else value for value in line]
            for value, rank in zip(known, found, strict=True):
                before, equal = sum(other > value for other in known), sum(other == value for other in known)
                assert rank == before + (equal + 1) / 2

    def test_figures_that_differ_by_rounding_are_equal(self) -> None:
        assert ranks(np.array([[0.1 + 0.2, 0.3]])).tolist() == [[1.5, 1.5]]

    def test_wins_are_counted_over_the_tables(self) -> None:
        rates = win_rates(self.VALUES)
        known = np.where(np.isnan(self.VALUES), -1, self.VALUES)
        for row in range(4):
            for column in range(4):
                won = [(mine > theirs) + (mine == theirs) / 2 for mine, theirs in known[:, [row, column]]]
                assert rates[row, column] == pytest.approx(sum(won) / 4) or (
                    row == column and np.isnan(rates[row, row])
                )

    @pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (5, 2.728), (10, 3.164)])
    def test_critical_differences_are_those_of_the_published_table(self, methods: int, quantile: float) -> None:
        published = quantile * (methods * (methods + 1) / (6 * 30)) ** 0.5  # Demsar 2006, table 5 (a)
        assert critical_difference(methods, 30) == pytest.approx(published, rel=5e-4)


class TestGiven:
    def test_a_table_is_added_by_a_file_or_by_a_line(self, tables: Path, tmp_path: Path) -> None:
        found = find_tables(tables, target=None, chosen=None)
        assert found == [GivenTable(name, tables / f"{name}.csv", "class") for name in ("one", "two")]
        elsewhere = write_table(tmp_path / "adult.csv", [{"income": row["class"], **row} for row in rows(20)])
        (tables / "tables.csv").write_text("file,target\n../adult.csv,income\n")
        found = find_tables(tables, target=None, chosen=["adult", "one"])
        assert found[0] == GivenTable("adult", tables / "../adult.csv", "income")
        assert found[0].file.samefile(elsewhere)
        assert find_tables(tables, target="job", chosen=None)[0].target == "income"
        assert find_tables(tables, target="job", chosen=None)[1].target == "job"

    @pytest.mark.parametrize(
        ("words", "lines", "told"),
        [
            (["--tables=three"], None, "--tables three: must be one of one, two"),
            (["--target=clas"], None, "--target clas: {}/one.csv has no such column; must be one of age, job"),
            ([], "one.csv,class", "{}/tables.csv: begins with one.csv,class; must begin with file,target"),
            ([], "file,target\none.csv", "{}/tables.csv: line 2 is one.csv; must be a file and its target"),
            ([], "file,target\none.csv,clas", "tables.csv: target=clas: {}/one.csv has no such column"),
            ([], "file,target\nnone.csv,class", "{}/none.csv: cannot be read (No such file or directory)"),
            ([], "file,target\n../one.csv,class", "{}/../one.csv: has the name of {}/one.csv; each table must have"),
            (["--split=80,20"], None, "--split 80,20: must be three parts of a hundred: to learn from"),
            (["--split=64,16,10"], None, "--split 64,16,10: must be three parts of a hundred"),
            (["--memlab=memory='topk"], None, "--memlab memory='topk: No closing quotation"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, words: list[str], lines: str | None, told: str, tables: Path, memlab: Command
    ) -> None:
        if lines is not None:
            (tables / "tables.csv").write_text(lines)
        output = tables.parent / "out"
        status, _, err = memlab("bench-tables", tables, f"--output={output}", *words)
        assert status == 1
        assert err.startswith(f"error: {told.format(tables, tables)}")
        assert len(err.splitlines()) == 1
        assert not output.exists()

    @pytest.mark.parametrize(
        ("word", "told"),
        [
            ("--methods=knn,svm", "argument --methods: knn,svm: must be of knn, logistic, hist, "),
            ("--seeds=-1", "argument --seeds: -1: must be whole numbers of at least 0, with commas between"),
            ("--threads=0", "argument --threads: 0: must be a whole number of at least 1"),
        ],
    )
    def test_a_word_that_does_not_fit_is_told(self, word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["bench-tables", "tables", word])
        assert told in capsys.readouterr().err

    def test_a_folder_without_tables_is_one_line(self, memlab: Command, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for name, told in (("empty", "has no tables; must have files that end in .csv"), ("none", "there is no such")):
            status, _, err = memlab("bench-tables", tmp_path / name)
            assert (status, err.count("\n")) == (1, 1)
            assert err.startswith(f"error: {tmp_path / name}: {told}")


class TestSplit:
    def test_parts_are_apart_and_have_their_shares_of_each_class(self, split: Split) -> None:
        parts = [split.train, split.validation, split.test]
        assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(400))
        labels = np.concatenate([part.y for part in parts])
        for part, share in zip(parts, SHARES, strict=True):
            counts = np.bincount(part.y) - np.bincount(labels) * share / 100
            assert np.abs(counts).max() <= 1

    def test_is_that_of_a_run_with_the_same_seed_whose_memory_answers(
        self, split: Split, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders: list[Path] = []

        def run_here(script: str, *words: str) -> None:
            assert script == str(REPOSITORY / "train.py")
            outcome = command(*words)
            assert outcome.status == 0, outcome.err
            folders.append(Path(words[-1].removeprefix("hydra.run.dir=")))

        monkeypatch.setattr(own, "output", run_here)
        fitted = fit_of(f"memlab {' '.join(SMOKE)} encoder.width=16")(split, 1)
        (folder,) = folders
        with (folder / "predictions.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [int(line["id"]) for line in lines] == split.test.rows.tolist()
        mass = [[float(line[f"p({name})"]) for name in split.class_names] for line in lines]
        assert fitted.answer() == pytest.approx(np.array(mass), abs=1e-6)
        results = json.loads((folder / "results.json").read_text())
        assert (results["seed"], fitted.seconds, fitted.chosen) == (3, results["fit_seconds"], "epoch 1 of 1")
        memory = load(folder)
        assert sorted(memory._content.ids.tolist()) == split.train.rows.tolist()
        assert memory.kind.columns is not None
        assert memory.kind.columns.words == split.words

    def test_words_are_rare_as_in_a_run(self) -> None:
        assert OmegaConf.load(REPOSITORY / "conf" / "data" / "table.yaml").rare_below == RARE_BELOW


class TestMethods:
    def test_each_has_a_way_to_be_fitted(self) -> None:
        assert [*FITS, "memlab"] == list(METHODS)

    @pytest.mark.parametrize("name", INSTALLED)
    def test_learns_without_a_look_at_the_test_rows(self, name: str, split: Split) -> None:
        fitted = fit_of(name)(split, 1)
        mass = fitted.answer()
        assert mass.shape == (80, 2)
        assert mass.sum(axis=1) == pytest.approx(np.ones(80), abs=1e-5)
        assert figures(mass, split.test.y)["accuracy"] > 0.8
        if name == "realmlp":  # takes seconds
            return
        others = np.where(split.is_word, 0, -3 * split.test.x)  # and all of one class, but for the first row
        others[0] = split.test.x[0]
        changed = replace(split, test=split.test._replace(x=others, y=split.test.y * 0))
        again = fit_of(name)(changed, 1)
        assert (again.answer()[0] == mass[0]).all()
        assert again.chosen == fitted.chosen

    def test_neighbours_are_as_many_as_validation_says(self, split: Split) -> None:
        prepared = fits._standardised(split)
        train, validation = prepared(split.train.x), prepared(split.validation.x)
        distances = np.linalg.norm(validation[:, None] - train[None], axis=2)
        scores = {}
        for k in NEIGHBOURS:
            nearest = split.train.y[distances.argsort(axis=1, kind="stable")[:, :k]]
            scores[k] = np.mean((nearest.mean(axis=1) > 0.5) == split.validation.y)
        best = fit_of("knn")(split, 1).chosen
        assert best == f"k = {max(scores, key=lambda k: scores[k])}"

    def test_numbers_are_standardised_by_the_training_rows_and_words_one_hot(self, split: Split) -> None:
        prepared = fits._standardised(split)(split.train.x)
        numbers = int((~split.is_word).sum())
        assert prepared[:, :numbers].mean(axis=0) == pytest.approx(np.zeros(numbers), abs=1e-9)
        assert prepared[:, :numbers].std(axis=0) == pytest.approx(np.ones(numbers))
        words = prepared[:, numbers:]
        assert words.shape[1] == 5  # four jobs, and a missing one
        assert set(words.ravel()) == {0.0, 1.0}
        assert (words.sum(axis=1) == 1).all()

    def test_classes_that_a_model_has_not_seen_have_no_mass(self, split: Split) -> None:
        class Model:
            classes_ = np.array([0, 2])

            def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
                return np.full((len(x), 2), 0.5)

        mass = fits._mass(Model(), split.test.x[:3], replace(split, class_names=("a", "b", "c")))
        assert mass.tolist() == [[0.5, 0, 0.5]] * 3

    def test_a_run_that_fails_tells_its_line(self, split: Split) -> None:
        cell = Cell(split.given, "memlab encoder=tabel", 0, SHARES, 1)
        assert measure(cell)["failure"].startswith("encoder=tabel: must be one of bag, conv, elman, ")
        assert measure(cell._replace(table=split.given._replace(target="clas")))["failure"].startswith("target=clas: ")

    def test_a_process_that_dies_is_a_failure(self, split: Split, tmp_path: Path) -> None:
        cell = Cell(split.given, "knn", 0, SHARES, 1)
        before = dict(os.environ)
        assert measured_apart(cell, tmp_path / "no" / "log.txt") == {"failure": "its process died (exit status 1)"}
        assert dict(os.environ) == before


def figures_alone(file: Path) -> list[dict[str, Any]]:
    """What does not hang on the clock."""
    records = json.loads(file.read_text())["results"]
    return [{name: value for name, value in each.items() if not name.endswith("seconds")} for each in records]


def in_a_run(pid: int) -> list[psutil.Process]:
    """What a process has started, and these, when a run is among them; none before."""
    with suppress(psutil.Error):  # of one that has just ended
        found = psutil.Process(pid).children(recursive=True)
        if any(str(REPOSITORY / "train.py") in each.cmdline() for each in found):
            return found
    return []


class TestRun:
    WORDS = ("--methods=knn,logistic", "--seeds=0,1")

    def test_measures_all_on_the_same_rows_and_reports(
        self, tables: Path, here: list[Cell], memlab: Command, tmp_path: Path
    ) -> None:
        status, out, err = memlab("bench-tables", tables, *self.WORDS, f"--output={tmp_path / 'out'}")
        assert (status, err) == (0, "")
        assert len(here) == 8
        assert {(cell.shares, cell.threads) for cell in here} == {(SHARES, 1)}
        records = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
        assert [(each["seed"], each["table"], each["method"]) for each in records] == [
            (seed, table, method) for seed in (0, 1) for table in ("one", "two") for method in ("knn", "logistic")
        ]
        assert [each["rows"] for each in records[::2]] == [[76, 20, 24], [96, 24, 30]] * 2
        text = (tmp_path / "out" / "report.md").read_text()
        assert text in out
        values = {each["table"]: [] for each in records}  # type: ignore[var-annotated]
        for each in records:
            if each["method"] == "knn":
                values[each["table"]].append(100 * each["accuracy"])
        for table, (first, second) in values.items():
            mean, deviation = (first + second) / 2, abs(first - second) / 2**0.5
            assert f"| {table} | {mean:.2f} ± {deviation:.2f} |" in text
        with (tmp_path / "out" / "results.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [float(line["auroc"]) for line in lines] == [each["auroc"] for each in records]
        with Image.open(tmp_path / "out" / "ranks.png") as picture:
            assert picture.width > 500
            assert len(set(picture.convert("L").resize((90, 60)).tobytes())) > 10

    def test_goes_on_where_it_was_interrupted(
        self, tables: Path, here: list[Cell], memlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, half = tmp_path / "whole", tmp_path / "half"
        assert memlab("bench-tables", tables, *self.WORDS, f"--output={whole}")[0] == 0
        here.clear()

        def interrupted(cell: Cell, _: Path) -> dict[str, Any]:
            if len(here) == 5:
                raise KeyboardInterrupt
            here.append(cell)
            return measure(cell)

        with monkeypatch.context() as patched:
            patched.setattr(work, "measured_apart", interrupted)
            assert memlab("bench-tables", tables, *self.WORDS, f"--output={half}")[0] == 130
        assert figures_alone(half / "results.json") == figures_alone(whole / "results.json")[:5]
        here.clear()
        assert memlab("bench-tables", tables, *self.WORDS, f"--output={half}")[0] == 0
        assert len(here) == 3
        assert figures_alone(half / "results.json") == figures_alone(whole / "results.json")
        assert memlab("bench-tables", tables, *self.WORDS, f"--output={half}")[0] == 0
        assert len(here) == 3

    def test_a_killed_one_leaves_a_whole_file_and_no_process(self, tables: Path, tmp_path: Path) -> None:
        output = tmp_path / "out"
        long = "--memlab=trainer.max_epochs=100000"
        words = ["bench-tables", str(tables), "--methods=knn", long, "--tables=one", f"--output={output}"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen([sys.executable, "-m", "memlab", *words], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert b"one, knn: " in said[1]
        while not (started := in_a_run(process.pid)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(started, timeout=60)
        assert not alive
        (record,) = figures_alone(output / "results.json")
        assert record["table"] == "one"

    def test_a_method_that_fails_is_last_and_tried_again(
        self, tables: Path, here: list[Cell], memlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(split: Split, threads: int) -> Fitted:
            if split.given.name == "two":
                raise RuntimeError("no such\nluck | at all")
            return FITS["knn"](split, threads)

        monkeypatch.setitem(fits.FITS, "logistic", fails)
        words = ("bench-tables", tables, "--methods=logistic,knn", f"--output={tmp_path / 'out'}")
        status, out, err = memlab(*words)
        assert status == 0
        assert "Traceback" in err  # in the log, where it has a process of its own
        assert "seed 0, two, logistic: failed, no such luck | at all\n" in out
        assert "- two, logistic, seed 0: no such luck | at all\n" in out
        ranked = [line for line in out.splitlines() if line.startswith(("| knn", "| logistic"))]
        assert [line.split(" | ")[1] for line in ranked] == [
            "1.25",
            "1.75",
        ]  # equal on one table, and last on the other
        here.clear()
        monkeypatch.setitem(fits.FITS, "logistic", FITS["knn"])
        status, out, _ = memlab(*words)
        assert [(cell.table.name, cell.method) for cell in here] == [("two", "logistic")]
        assert "failed" not in out

    def test_what_is_not_installed_is_left_out_with_a_line(
        self, tables: Path, here: list[Cell], memlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, method in METHODS.items():
            if name != "knn":
                monkeypatch.setitem(methods.METHODS, name, method._replace(needs="nowhere>=1"))
        monkeypatch.setitem(methods.METHODS, "logistic", METHODS["knn"]._replace(needs="scikit-learn>=1000"))
        status, out, _ = memlab("bench-tables", tables, "--tables=one", f"--output={tmp_path / 'out'}")
        assert status == 0
        assert [cell.method for cell in here] == ["knn"]
        assert 'left out: logistic, needs scikit-learn>=1000: pip install -e ".[bench-tables]"\n' in out
        assert 'left out: memlab, needs nowhere>=1: pip install -e ".[bench-tables]"\n' in out
        assert not (tmp_path / "out" / "ranks.png").exists()
        for words in ("--methods=catboost", "--memlab=memory=topk"):
            status, _, err = memlab("bench-tables", tables, words)
            assert (status, err) == (1, f"error: {words.replace('=', ' ', 1)}: needs nowhere>=1: {methods.INSTALL}\n")

    def test_figures_of_other_settings_or_tables_are_not_mixed(
        self, tables: Path, here: list[Cell], memlab: Command, tmp_path: Path
    ) -> None:
        words = ("bench-tables", tables, "--methods=knn", f"--output={tmp_path / 'out'}")
        assert memlab(*words)[0] == 0
        file = tmp_path / "out" / "results.json"
        for more, told in (
            ("--threads=2", f"--threads 2: {file} has figures of 1; must be the same, or another --output"),
            ("--split=60,20,20", f"--split 60,20,20: {file} has figures of 64,16,20; must be the same"),
        ):
            status, _, err = memlab(*words, more)
            assert status == 1
            assert err.startswith(f"error: {told}")
        write_table(tables / "one.csv", count=130)
        status, _, err = memlab(*words)
        assert (status, err) == (
            1,
            f"error: {tables / 'one.csv'}: is not what it was when {file} was written; take another --output\n",
        )
        file.write_text("{}")
        status, _, err = memlab(*words)
        assert (status, err) == (1, f"error: {file}: is no file of memlab bench-tables; take another folder\n")
        file.rename(file.with_name("others.json"))
        assert memlab(*words)[2].startswith(f"error: --output={tmp_path / 'out'}: must be a new or an empty folder")
        within = tables / "one.csv" / "out"
        status, _, err = memlab(*words[:-1], f"--output={within}")
        assert (status, err) == (1, f"error: {within}: cannot be written (Not a directory)\n")

    def test_words_for_memlab_are_methods_of_their_own(
        self, tables: Path, memlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def measured(cell: Cell, _: Path) -> dict[str, Any]:
            asked.append(cell.method)
            return {"failure": "of no concern"}

        monkeypatch.setattr(work, "measured_apart", measured)
        words = ["--methods=memlab", "--memlab=memory=topk", "--memlab=memory.hops=1  seed=3", "--tables=one"]
        status, out, _ = memlab("bench-tables", tables, *words, f"--output={tmp_path / 'out'}")
        assert status == 0
        assert asked == ["memlab", "memlab memory=topk", "memlab memory.hops=1 seed=3"]
        assert "| memlab memory=topk | 2.00 | 2.00 | 2.00 | 50 | - |" in out


@pytest.mark.parametrize("name", ["german", "letter"])
def test_of_public_tables_neighbours_are_about_as_good_as_published(name: str, tmp_path: Path) -> None:
    import tarfile

    archive = SHARED_DATA / "tables.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no tables in {SHARED_DATA}")
    with tarfile.open(archive) as content:
        content.extract(f"tables/{name}.csv", tmp_path, filter="data")
    (given,) = find_tables(tmp_path / "tables", target=None, chosen=[name])
    found = measure(Cell(given, "knn", 0, SHARES, 1))
    assert found["accuracy"] > {"german": 0.65, "letter": 0.93}[name]
