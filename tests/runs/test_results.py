"""What a run leaves to be read."""

from __future__ import annotations

import csv
import io
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import memlab
from memlab.runs import results
from memlab.runs.results import (
    PACKAGES,
    read_flipped,
    read_predictions,
    results_table,
    versions,
    write_flipped,
    write_predictions,
)

RESULTS: dict[str, Any] = {
    "data": "pictures",
    "seed": 0,
    "sizes": {"test": 10_000, "train": 54_000, "support": 10_000},
    "epochs": 30,
    "best_epoch": 29,
    "wall_time_seconds": 12_345.0,
    "test/accuracy": 0.98765,
    "test/balanced_accuracy": 0.95432,
    "test/f1_macro": 0.95321,
    "test/nll": 12.3456,
    "test/ece": 0.12345,
    "baselines": {"knn_tangent": {"title": "kNN by tangent distance, k = 1", "accuracy": 1.0}},
}


@pytest.mark.parametrize(
    ("more", "shown", "left_out"),
    [({}, ["balanced", "95.43%"], "AUROC"), ({"test/auroc": 0.98764}, ["AUROC", "0.9876"], "balanced")],
)
def test_closing_table_fits_eighty_columns(more: dict[str, float], shown: list[str], left_out: str) -> None:
    printed = io.StringIO()
    table = results_table({**RESULTS, **more}, classifier="resnet_small encoder, topk memory, M = 54,000, K = 32")
    Console(file=printed, width=80).print(table)
    text = printed.getvalue()
    for words in (
        "accuracy",
        "98.77%",
        "macro",
        "0.9532",
        "NLL, nats",
        "12.3456",
        "calibration",
        "12.35%",
        "100.00%",
        *shown,
    ):
        assert words in text
    assert left_out not in text
    assert max(map(len, text.splitlines())) <= 80


def test_versions_are_told_of_packages_that_were_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions().keys() == {"python", "memlab", *PACKAGES}
    assert "unknown" not in versions().values()

    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(results, "version", version)
    versions.cache_clear()
    try:
        assert versions()["memlab"] == memlab.__version__
        assert versions()["torch"] == "unknown"
    finally:
        versions.cache_clear()


def test_predictions_come_back_to_the_last_bit_whatever_the_names(tmp_path: Path) -> None:
    names = ['a "b", c', "=1+1", "line\nbreak", "d"]
    sources = ["train/a, b/1.png", 'x"y', "two\r\nlines", "row 3", "café"]
    mass = np.random.default_rng(0).random((5, 4), np.float32) ** 20  # down to where float32 has fewer digits
    mass[0] = np.array([0, 1, np.finfo(np.float32).tiny, np.finfo(np.float32).smallest_subnormal])
    write_predictions(
        tmp_path, names, ids=range(7, 12), sources=sources, truth=[0, 1, 2, 3, 0], answers=[1, 1, 2, 2, 3], mass=mass
    )
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["id", "source", "truth", "answer", *(f"p({name})" for name in names)]
    assert [line[0] for line in lines] == ["7", "8", "9", "10", "11"]
    assert [line[1] for line in lines] == sources
    assert [line[2] for line in lines] == [names[label] for label in (0, 1, 2, 3, 0)]
    assert [line[3] for line in lines] == [names[label] for label in (1, 1, 2, 2, 3)]
    np.testing.assert_array_equal(np.array([line[4:] for line in lines], np.float32), mass)
    read = read_predictions(tmp_path)
    assert (read.class_names, read.ids.tolist(), read.truth.tolist()) == (names, [7, 8, 9, 10, 11], [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(read.mass, mass)
    assert read.are_of_the_objects_of(read._replace(mass=1 - read.mass))
    assert not read.are_of_the_objects_of(read._replace(ids=read.ids + 1))
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


def test_labels_that_were_made_wrong_are_kept(tmp_path: Path) -> None:
    write_flipped(tmp_path, ["no", "a,b"], ids=[3, 7, 9], labels=[1, 0, 0], truth=[0, 0, 1])
    assert (tmp_path / "flipped.csv").read_text() == 'id,label,truth\n3,"a,b",no\n9,no,"a,b"\n'
    assert read_flipped(tmp_path) == [3, 9]
