"""From run folders to rows: runs that differ in nothing but the seed are one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from memlab.runs import failure
from memlab.runs.report.published import OBJECT_MEMORIES, RELATIVES, TABLE_1, Relative
from memlab.runs.results import FILE, read_curves, read_results

SAME_ROW = (
    "seed",
    "data.root",
    "data.path",
    "data.cache",
    "ckpt_path",
    "trainer.enable_progress_bar",
    "baselines",
    "evidence.",
    "figures",
    "sweep.",
)
"""Overrides, or beginnings of them, that do not make another row."""

NEEDED = ("data", "choices", "overrides", "sizes", "baselines", "machine", "peak_memory_bytes", "fit_seconds")
"""What results must hold to be reported."""


@dataclass
class Run:
    """One run that came to its end."""

    folder: Path
    results: dict[str, Any]

    @property
    def curves(self) -> dict[str, dict[int, float]]:
        """Accuracy by epoch; see `memlab.runs.results.read_curves`."""
        return read_curves(self.folder / "metrics.csv")


@dataclass
class Row:
    """Runs of one setting, or what one baseline found beside them."""

    data: str
    method: str
    """What was trained, or the baseline, in a few words."""
    key: str
    """Encoder or baseline, as published figures name it."""
    memory: str
    """Mode of the memory; empty for a baseline."""
    accuracies: list[float]
    """Test accuracy of every run, from 0 to 1."""
    command: str = ""
    support: int | None = None
    """M."""
    epochs: int | None = None
    seconds: float | None = None
    """Of training, the mean over runs; of a baseline all it took."""
    peak_bytes: int | None = None
    """Largest of the runs."""
    validation: float = float("-inf")
    """Mean validation accuracy of the checkpoints tested."""
    machines: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The method with its M."""
        return f"{self.method}, M = {self.support:,}" if self.support else self.method

    @property
    def mean(self) -> float:
        """Mean test accuracy over the seeds."""
        return mean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds, with n - 1; None of a single run."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def thesis(self, names: Mapping[str, str]) -> float | None:
        """The thesis's figure for this method and data, in percent.

        Args:
            names: of a data set here to the name by which it is published.
        """
        if self.memory and self.memory not in OBJECT_MEMORIES:
            return None
        return TABLE_1.get((self.key, names.get(self.data, self.data)))

    def relative(self, names: Mapping[str, str]) -> Relative | None:
        """The best published relative; see `thesis`."""
        return RELATIVES.get((self.key, names.get(self.data, self.data))) if self.memory else None


def find_runs(places: Iterable[Path]) -> tuple[list[Run], list[Path]]:
    """The runs in and below some folders, and the run folders that lack results.

    Args:
        places: run folders, folders of sweeps, or folders that hold these.

    Raises:
        ValueError: if a place is no folder or holds no run, or a run is of an earlier version.
    """
    runs, unfinished = [], []
    for place in places:
        if not place.is_dir():
            raise ValueError(f"{place}: there is no such folder; must be a run folder, or hold some")
        folders = sorted({file.parent for name in (FILE, "config.yaml", failure.FILE) for file in place.rglob(name)})
        if not folders:
            raise ValueError(f"{place}: holds no run; must be a run folder, or hold some")
        for folder in folders:
            results = read_results(folder)
            if results is None:
                unfinished.append(folder)
            elif lacking := [name for name in NEEDED if name not in results]:
                raise ValueError(f"{folder}: its results.json lacks {lacking[0]}, as those of earlier versions do")
            else:
                runs.append(Run(folder, results))
    return runs, unfinished


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row for every setting and every baseline, data by data, best first."""
    rows = [*map(_trained, grouped(runs, _setting)), *_baselines(runs)]
    sets = list(dict.fromkeys(row.data for row in rows))
    return sorted(rows, key=lambda row: (sets.index(row.data), -row.mean))


def grouped(runs: Sequence[Run], key: Callable[[Run], object]) -> list[list[Run]]:
    """Runs that have the same key, in the order in which these come first."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _setting(run: Run) -> object:
    results = run.results
    return (
        results["data"],
        tuple(sorted(telling(results["overrides"]))),
        tuple(sorted(results["sizes"].items())),
        results["epochs"],
        results["device"],
    )


def telling(overrides: Iterable[str]) -> list[str]:
    """Those that make another row."""
    return [word for word in overrides if not word.startswith(SAME_ROW)]


def _trained(runs: list[Run]) -> Row:
    first = runs[0].results
    choices = first["choices"]
    chosen = [run.curves["validation/accuracy"].get(run.results["best_epoch"]) for run in runs]
    known = [value for value in chosen if value is not None]
    return Row(
        data=first["data"],
        method=_method(first),
        key=choices["encoder"],
        memory=choices["memory"],
        accuracies=[run.results["test/accuracy"] for run in runs],
        command=" ".join(["python train.py", *telling(first["overrides"])]),
        support=first["sizes"]["support"],
        epochs=first["epochs"],
        seconds=mean(run.results["fit_seconds"] for run in runs),
        peak_bytes=max(run.results["peak_memory_bytes"] for run in runs),
        validation=mean(known) if known else float("-inf"),
        machines=list(dict.fromkeys(run.results["machine"] for run in runs)),
        runs=runs,
    )


def _method(results: Mapping[str, Any]) -> str:
    """What was trained, with the parameters given on the command line that have no column of their own."""
    choices = results["choices"]
    named = {"data", "encoder", "memory", "experiment", "support.size", "trainer.max_epochs"}
    names = {word: word.split("=")[0].lstrip("+") for word in telling(results["overrides"])}
    given = [
        word
        for word, name in names.items()
        if name not in named and not name.endswith("._target_") and not name.startswith("~")  # what a class lacks
    ]
    words = [f"{choices['encoder']} encoder", f"{choices['memory']} memory", *given]
    return ", ".join(words)


def _baselines(runs: Sequence[Run]) -> list[Row]:
    """A row for each baseline: those of raw inputs are the same whatever was trained beside them."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        for name, baseline in run.results["baselines"].items():
            title = baseline["title"]
            if name == "knn_embedding":
                title = f"{title}: {_method(run.results)}"
            found.setdefault((run.results["data"], name, title), []).append(run)
    rows = []
    for (data, name, title), group in found.items():
        measured = [run.results["baselines"][name] for run in group]
        accuracies = [each["accuracy"] for each in measured]
        rows.append(
            Row(
                data=data,
                method=title,
                key=name,
                memory="",
                accuracies=accuracies if len(set(accuracies)) > 1 else accuracies[:1],
                seconds=mean(each["seconds"] for each in measured),
                machines=list(dict.fromkeys(run.results["machine"] for run in group)),
            )
        )
    return rows
