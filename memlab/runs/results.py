"""What a run leaves to be read: ``results.json``, written last and whole or not at all, curves, the closing table."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from memlab import __version__
from memlab.files import written_whole

FILE, FLIPPED, PREDICTIONS = "results.json", "flipped.csv", "predictions.csv"
CURVES = {"train/accuracy": "train", "validation/accuracy": "validation", "test/accuracy": "test"}
"""What is followed by epoch, and what it is called."""
PACKAGES = ["torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "scikit-learn"]


@cache
def versions() -> dict[str, str]:
    """Versions of Python, of memlab and of the packages that a result depends on."""
    return {"python": platform.python_version(), "memlab": __version__, **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a package can be imported that was never installed, from a clone or an archive
        return "unknown"


def write_predictions(
    folder: Path,
    class_names: Sequence[str],
    *,
    ids: Sequence[int],
    sources: Iterable[str],
    truth: Sequence[int],
    answers: Sequence[int],
    mass: NDArray[np.float32],
) -> None:
    """Write what was answered to each test object, a line for each, as ``predictions.csv``.

    Args:
        folder: of the run.
        class_names: by class id.
        ids: (T,) which object it is.
        sources: (T,) where it is from.
        truth: (T,) its class.
        answers: (T,) the class answered.
        mass: (T, C) class mass, written with the nine digits that give back the same float32.
    """
    with written_whole(folder / PREDICTIONS) as file:
        csv.writer(file).writerow(["id", "source", "truth", "answer", *(f"p({name})" for name in class_names)])
        # Numbers need no quoting: with a thousand classes csv's writer takes six times as long as one format by line.
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator=",")
        numbers = ",".join(["%.9g"] * len(class_names)) + "\r\n"
        for number, source, label, answer, row in zip(ids, sources, truth, answers, mass, strict=True):
            writer.writerow([number, source, class_names[label], class_names[answer]])
            file.write(numbers % tuple(row.tolist()))


class Predictions(NamedTuple):
    """What was answered to the test objects of a run; see `write_predictions`."""

    class_names: list[str]
    ids: NDArray[np.int64]
    """(T,) which object it is."""
    truth: NDArray[np.int64]
    """(T,) class ids."""
    mass: NDArray[np.float32]
    """(T, C) class mass."""

    def are_of_the_objects_of(self, others: Predictions) -> bool:
        """Whether these objects, with these classes, are those of others, in the same order."""
        return (
            self.class_names == others.class_names
            and np.array_equal(self.ids, others.ids)
            and np.array_equal(self.truth, others.truth)
        )


def read_predictions(folder: Path) -> Predictions:
    """What `write_predictions` wrote."""
    with (folder / PREDICTIONS).open(encoding="utf-8", newline="") as file:
        (_, _, _, _, *columns), *lines = csv.reader(file)
    names = [column[2:-1] for column in columns]  # p(name)
    numbers = {name: number for number, name in enumerate(names)}
    return Predictions(
        class_names=names,
        ids=np.array([int(line[0]) for line in lines]),
        truth=np.array([numbers[line[2]] for line in lines]),
        mass=np.array([line[4:] for line in lines], dtype=np.float32),
    )


def write_flipped(
    folder: Path, class_names: Sequence[str], *, ids: Sequence[int], labels: Sequence[int], truth: Sequence[int]
) -> None:
    """Write which labels ``data.flip_labels`` made wrong, a line for each, as ``flipped.csv``.

    Args:
        folder: of the run.
        class_names: by class id.
        ids: of the objects.
        labels: class ids of the objects.
        truth: the same before.
    """
    with written_whole(folder / FLIPPED) as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "truth"])
        for identity, label, true in zip(ids, labels, truth, strict=True):
            if label != true:
                writer.writerow([identity, class_names[label], class_names[true]])


def read_flipped(folder: Path) -> list[int]:
    """The ids in ``flipped.csv``."""
    with (folder / FLIPPED).open(encoding="utf-8", newline="") as file:
        return [int(line["id"]) for line in csv.DictReader(file)]


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write ``results.json`` into a run folder in one move, so that the file's presence means the run is complete."""
    with written_whole(folder / FILE) as file:
        json.dump(results, file, indent=2)
        file.write("\n")


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results of a run folder, or None if the run did not come to its end."""
    file = folder / FILE
    if not file.is_file():
        return None
    results: dict[str, Any] = json.loads(file.read_text())
    return results


def read_curves(metrics_csv: Path) -> dict[str, dict[int, float]]:
    """Accuracy by epoch from a run's ``metrics.csv``: curve name to (epoch, counted from 1, to accuracy).

    The closing test of the best checkpoint, a row without validation, is not part of the test curve.
    """
    curves: dict[str, dict[int, float]] = {name: {} for name in CURVES}
    with metrics_csv.open(newline="") as file:
        for row in csv.DictReader(file):
            for name in CURVES:
                closing_test = name == "test/accuracy" and not row.get("validation/accuracy")
                if row.get(name) and not closing_test:
                    curves[name][int(row["epoch"]) + 1] = float(row[name])
    return curves


def write_confusion(folder: Path, class_names: Sequence[str], counts: NDArray[np.int64]) -> None:
    """Write how often each class was answered for each true class, a line for each of these, as ``confusion.csv``.

    Args:
        folder: of the run.
        class_names: by class id.
        counts: (C, C) test objects by true class and answer.
    """
    with written_whole(folder / "confusion.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["true class", *class_names])
        writer.writerows([name, *line] for name, line in zip(class_names, counts.tolist(), strict=True))


def read_confusion(folder: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Class names and counts as `write_confusion` wrote them."""
    with (folder / "confusion.csv").open(encoding="utf-8", newline="") as file:
        (_, *names), *lines = csv.reader(file)
    return names, np.array([[int(count) for count in line[1:]] for line in lines])


def results_table(results: Mapping[str, Any], *, classifier: str) -> Table:
    """The main figures of the classifier, and the baselines on the same split beside it.

    Accuracy, macro F1, NLL and calibration error; AUROC for two classes, for more of them balanced accuracy.

    Args:
        results: as in ``results.json``.
        classifier: what was trained, in a few words.
    """
    sizes = results["sizes"]
    table = Table(
        title=f"{results['data']}: {sizes['test']:,} test objects, {sizes['train']:,} training objects"
        f"{' as memory' if sizes['support'] else ''}, seed {results['seed']}",
        caption=f"best of {results['epochs']} epochs by validation: epoch {results['best_epoch']};"
        f" {results['wall_time_seconds']:.0f} s",
    )
    balance = ("test/balanced_accuracy", "balanced\naccuracy", "{:.2%}")
    columns = [
        ("test/accuracy", "test\naccuracy", "{:.2%}"),
        ("test/auroc", "AUROC", "{:.4f}") if "test/auroc" in results else balance,
        ("test/f1_macro", "macro\nF1", "{:.4f}"),
        ("test/nll", "NLL, nats", "{:.4f}"),
        ("test/ece", "calibration\nerror", "{:.2%}"),
    ]
    table.add_column("classifier")
    for _, heading, _ in columns:
        table.add_column(heading, justify="right")
    table.add_row(classifier, *(text.format(results[name]) for name, _, text in columns))
    for baseline in results["baselines"].values():
        table.add_row(baseline["title"], f"{baseline['accuracy']:.2%}", *["-"] * (len(columns) - 1))
    return table
