"""Runs of networks over stories: several starts are a row, of which the best by training loss and the mean are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from memlab.runs.published_answers import FAILED, Published, published_of
from memlab.runs.report.collect import Run, grouped, telling

TASK = "questions"
HEADINGS = [
    "data",
    "method",
    "starts",
    "best start by training loss: test error, % (failed)",
    "mean test error, % (failed)",
    "published, %",
    "epochs",
    "training time, s",
    "peak memory, MiB",
]


@dataclass
class Row:
    """Starts of one setting, or what one baseline found beside them."""

    data: str
    method: str
    errors: list[float]
    """Mean over the tasks of each start, from 0 to 1."""
    failed: list[int]
    """Tasks that each start failed."""
    errors_by_task: list[dict[str, float]]
    best: int
    """The start of the least training loss."""
    published: Published | None = None
    epochs: str = "-"
    seconds: float = 0.0
    """Of training, the mean; of a baseline all it took."""
    peak: str = "-"
    command: str = ""


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row for every setting and every baseline, data by data, the least mean error first."""
    rows = [_trained(group) for group in grouped(runs, _setting)] + _baselines(runs)
    sets = list(dict.fromkeys(row.data for row in rows))
    return sorted(rows, key=lambda row: (sets.index(row.data), mean(row.errors)))


def _setting(run: Run) -> object:
    results = run.results
    words = tuple(sorted(telling(results["overrides"])))
    return results["data"], words, tuple(sorted(results["sizes"].items())), results["epochs"], results["device"]


def _trained(runs: list[Run]) -> Row:
    first = runs[0].results
    memory = first["choices"]["memory"]
    named = ("task=", "data", "memory=", "experiment=")
    given = [word for word in telling(first["overrides"]) if not word.startswith(named)]
    losses = [run.results["train/loss"] for run in runs]
    return Row(
        data=first["data"],
        method=", ".join([memory, *given]),
        errors=[run.results["test/error"] for run in runs],
        failed=[run.results["failed"] for run in runs],
        errors_by_task=[{name: task["error"] for name, task in run.results["tasks"].items()} for run in runs],
        best=losses.index(min(losses)),
        published=published_of(memory, first["data"]),
        epochs=str(first["epochs"]),
        seconds=mean(run.results["fit_seconds"] for run in runs),
        peak=f"{max(run.results['peak_memory_bytes'] for run in runs) / 2**20:,.0f}",
        command=" ".join(["python train.py", *telling(first["overrides"])]),
    )


def _baselines(runs: Sequence[Run]) -> list[Row]:
    """A row for each, which is the same whatever was trained beside it."""
    found = {}
    for run in runs:
        for name, each in run.results["baselines"].items():
            found[run.results["data"], name] = each
    return [
        Row(
            data=data,
            method=each["title"],
            errors=[each["error"]],
            failed=[sum(error > FAILED for error in each["tasks"].values())],
            errors_by_task=[each["tasks"]],
            best=0,
            seconds=each["seconds"],
        )
        for (data, _), each in found.items()
    ]


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """A line for every row."""
    return [
        [
            row.data,
            row.method,
            str(len(row.errors)),
            f"{100 * row.errors[row.best]:.1f} ({row.failed[row.best]})",
            f"{100 * mean(row.errors):.1f}{_spread(row.errors)} ({mean(row.failed):.3g})",
            row.published.summary if row.published else "-",
            row.epochs,
            f"{row.seconds:,.0f}",
            row.peak,
        ]
        for row in rows
    ]


def by_task(rows: Sequence[Row], data: str) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of the error by task, in percent: of the best start of each row, and what is published."""
    headings, columns = ["task"], []
    own = [row for row in rows if row.data == data]
    for row in own:
        headings.append(row.method)
        columns.append({task: 100 * error for task, error in row.errors_by_task[row.best].items()})
        if row.published and row.published.by_task:
            headings.append("published")
            columns.append(dict(row.published.by_task))
    tasks = list(own[0].errors_by_task[0])
    return headings, [[task or "all", *(_error(column.get(task)) for column in columns)] for task in tasks]


def _error(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}"


def _spread(errors: Sequence[float]) -> str:
    return f" ± {100 * stdev(errors):.1f}" if len(errors) > 1 else ""
