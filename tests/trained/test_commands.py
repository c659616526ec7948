"""The commands on a memory of real digits: in a new process, in JSON, and told in one line what is wrong."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from memlab.trained import load
from tests.conftest import REPOSITORY, Command, Outcome
from tests.trained.memories import make, tables

NOT_NEEDED = {
    "pytorch_lightning",
    "lightning_fabric",
    "hydra",
    "omegaconf",
    "torchmetrics",
    "torchvision",
    "matplotlib",
}
NOT_NEEDED |= {"sklearn", "scipy", "sympy"}


@pytest.fixture
def run(command: Callable[..., Outcome], tmp_path: Path) -> Path:
    """A run on digits, and its test objects as picture files in folders by class."""
    words = ["trainer.max_epochs=2", "trainer.enable_progress_bar=false", "figures=false", "hydra.run.dir=outputs/RUN"]
    assert command(*words).status == 0
    folder = tmp_path / "outputs" / "RUN"
    images = load_digits().images
    for row in told(folder):
        target = tmp_path / "test" / row["truth"] / f"{int(row['id']):04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(images[int(row["id"])] * 255 / 16).astype(np.uint8)).save(target)
    return folder


def told(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


class Pictures(HTMLParser):
    """Sources of the pictures of a page, and whatever it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src") or dict(attrs).get("href") or ""
        if source.startswith("data:image/png;base64,"):
            self.pictures.append(source)
        elif source and not source.startswith("#"):
            self.fetched.append(source)


def test_real_digits_from_training_to_teaching(run: Path, memlab: Command, tmp_path: Path) -> None:
    self_told = told(run)
    accuracy = json.loads((run / "results.json").read_text())["test/accuracy"]

    _, out, _ = memlab("evaluate", run, tmp_path / "test", "--json", "--coverage", "0.9")
    figures = json.loads(out)
    assert figures["accuracy"] == pytest.approx(accuracy, abs=1e-7)
    results = json.loads((run / "results.json").read_text())
    for name in ("balanced_accuracy", "f1_macro", "nll", "brier", "ece"):
        assert figures[name] == pytest.approx(results[f"test/{name}"], abs=1e-5)
    assert 0.8 <= figures["coverage"] <= 1

    status, out, _ = memlab("predict", run, tmp_path / "test", "--csv", tmp_path / "out.csv", "--coverage", "0.9")
    assert (status, out) == (0, f"{len(self_told)} answers written to {tmp_path / 'out.csv'}\n")
    with (tmp_path / "out.csv").open() as file:
        answers = {Path(row["input"]).stem: row for row in csv.DictReader(file)}
    for row in self_told:
        ours = answers[f"{int(row['id']):04}"]
        assert ours["label"] == row["answer"]
        assert float(ours["p(3)"]) == pytest.approx(float(row["p(3)"]), abs=1e-6)

    check_a_new_process(run, tmp_path, self_told[0])
    check_the_page(run, memlab, tmp_path)
    check_teaching(run, memlab, tmp_path)


def check_a_new_process(run: Path, tmp_path: Path, wanted: dict[str, str]) -> None:
    """That knows neither Lightning nor Hydra nor anything else that it does not need."""
    (tmp_path / "refuse").mkdir()
    (tmp_path / "refuse" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {NOT_NEEDED!r}:\n"
        "            raise AssertionError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "refuse"), str(REPOSITORY)])}
    file = tmp_path / "test" / wanted["truth"] / f"{int(wanted['id']):04}.png"
    words = [sys.executable, "-m", "memlab", "predict", str(run), str(file), "--json", "--k", "3"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["input"], row["label"], len(row["evidence"])) == (str(file), wanted["answer"], 3)
    assert row["probabilities"]["3"] == pytest.approx(float(wanted["p(3)"]), abs=1e-5)


def check_the_page(run: Path, memlab: Command, tmp_path: Path) -> None:
    files = sorted((tmp_path / "test" / "5").iterdir())[:2]
    status, _, _ = memlab("explain", run, *files, "--k", 4, "--html", tmp_path / "page.html", "--coverage", 0.9)
    assert status == 0
    page = Pictures()
    page.feed((tmp_path / "page.html").read_text())
    assert len(page.pictures) == 2 * (1 + 4)
    assert not page.fetched

    status, out, _ = memlab("audit", run, "--html", tmp_path / "audit.html", "--json", "--limit", 5)
    assert status == 0
    assert json.loads(out)["objects"] == len(load(run))
    page = Pictures()
    page.feed((tmp_path / "audit.html").read_text())
    assert len(page.pictures) >= min(json.loads(out)["suspicious"], 5)
    assert not page.fetched


def check_teaching(run: Path, memlab: Command, tmp_path: Path) -> None:
    _, out, _ = memlab("info", run, "--json")
    before = json.loads(out)
    label = '<b>&"'
    _, out, _ = memlab("add", run, tmp_path / "test" / "5", "--label", label, "--json")
    added = json.loads(out)
    assert added["classes"][-1] == label
    source = str(sorted((tmp_path / "test" / "5").iterdir())[0])
    assert memlab("explain", run, source, "--html", tmp_path / "page.html")[0] == 0
    assert "<b>&" not in (tmp_path / "page.html").read_text()
    _, out, _ = memlab("forget", run, "--source", source)
    assert out.splitlines()[0] == f"1 objects forgotten: {added['ids'][0]}"
    assert "not undone: the encoder's weights" in out
    status, _, err = memlab("undo", run)
    assert (status, err.count("\n")) == (1, 1)
    assert "has forgotten 1 objects" in err
    assert memlab("add", run, tmp_path / "test", "--json")[0] == 0
    assert "taken back: add of" in memlab("undo", run)[1]
    _, out, _ = memlab("relabel", run, "--ids", added["ids"][1], "--label", "5")
    assert out == f"object {added['ids'][1]}: {label} -> 5\n"
    _, out, _ = memlab("undo", run, "--json")
    assert json.loads(out)["what"] == "relabel"
    memlab("forget", run, "--label", label)
    _, out, _ = memlab("info", run)
    assert f"digest: {before['digest']}" in out
    assert [line for line in out.splitlines() if "forget" in line][-1].endswith(
        f"forget {len(added['ids']) - 1} objects"
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of rows and their classes, beside a memory of such rows in ``m``."""
    make(tmp_path / "m", tables())
    store = tables(12, seed=4)
    names = [store.class_names[label] for label in store.labels.tolist()]
    np.savez(tmp_path / "rows.npz", X=store.inputs.numpy(), y=np.array(["dog", *names[1:]]))
    return tmp_path / "rows.npz"


def test_rows_of_a_table(rows: Path, memlab: Command, tmp_path: Path) -> None:
    _, out, _ = memlab("predict", tmp_path / "m", rows, "--json")
    assert [row["input"] for row in json.loads(out)] == [f"{rows} X[{n}]" for n in range(12)]
    _, out, _ = memlab("evaluate", tmp_path / "m", rows, "--json")
    assert (json.loads(out)["objects"], json.loads(out)["unknown_classes"]) == (12, 1)
    assert json.loads(out)["accuracy"] <= 11 / 12
    assert json.loads(memlab("add", tmp_path / "m", rows, "--json")[1])["objects"] == 60
    assert memlab("explain", tmp_path / "m", rows, "--html", tmp_path / "page.html")[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", "nowhere", "{rows}"], "nowhere: holds no trained memory"),
        (["predict", "{m}", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (["predict", "{m}", "{rows}", "{rows}"], "must be given alone"),
        (["predict", "{m}", "{other}"], "must be a file that ends in .npz, .pt, .safetensors, or .csv"),
        (["predict", "{m}", "{bad}"], "cannot be read as a .npz file"),
        (["predict", "{m}", "{rows}", "--k", "0"], "k=0: must be a whole number"),
        (["predict", "{m}", "{rows}", "--coverage", "2"], "coverage=2.0: must be a number above 0 and below 1"),
        (["predict", "{m}", "{rows}", "--csv", "no/such/folder.csv"], "cannot be written"),
        (["explain", "{m}", "{rows}", "--html", "no/such/folder.html"], "cannot be written"),
        (["forget", "{m}", "--ids", "999"], "ids=999: there is no such object"),
        (["relabel", "{m}", "--ids", "1", "--label", ""], "label=: must be the name of a class"),
        (["undo", "{m}"], "no change is left to take back"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], told: str, rows: Path, memlab: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_text("no arrays")
    (tmp_path / "other.txt").write_text("no arrays")
    places: dict[str, Any] = {
        "rows": rows,
        "m": tmp_path / "m",
        "bad": tmp_path / "bad.npz",
        "other": tmp_path / "other.txt",
    }
    status, out, err = memlab(*(word.format(**places) for word in words))
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert told in err
    assert len(err.splitlines()) == 1
