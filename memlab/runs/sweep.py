"""The end of a sweep: a table over its jobs, best first, and heat maps when two parameters vary."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from memlab.files import written_whole
from memlab.runs.composition import BEST_IS
from memlab.runs.failure import read_failure
from memlab.runs.figures import HeatMap, draw_heat_maps
from memlab.runs.results import read_results
from memlab.runs.resume import without_resume


class Column(NamedTuple):
    """A figure of every job, in the table and in ``sweep.csv``."""

    heading: str
    text: Callable[[float], str]
    """How it is written."""
    mapped: bool
    """Whether there is a heat map of it."""


COLUMNS = {
    "train/loss": Column("training loss", "{:.4f}".format, False),
    "test/error": Column("test error", "{:.2%}".format, True),
    "test/accuracy": Column("test accuracy", "{:.2%}".format, True),
    "test/nll": Column("NLL, nats", "{:.4f}".format, False),
    "test/ece": Column("ECE", "{:.2%}".format, False),
    "validation/recall": Column("recall@K", "{:.3f}".format, True),
    "fit_seconds": Column("training time", "{:.0f} s".format, True),
}
"""By the name in ``results.json``; what no job has is left out."""


@dataclass
class Job:
    """One job of a sweep."""

    name: str
    overrides: dict[str, str]
    """Parameter to value, as given on the command line."""
    results: dict[str, Any] | None
    """As in ``results.json``; None if the job failed."""
    failure: str = ""
    """Why there are no results."""


def close(folder: Path, *, by: str) -> bool:
    """Report on the jobs of a sweep's folder; whether all came to their end.

    Args:
        folder: of the sweep.
        by: the figure of validation to rank by.
    """
    jobs = [read_job(folder / name) for name in sorted(_job_names(folder), key=int)]
    report(jobs, folder, Console(), by=by)
    return all(job.results is not None for job in jobs)


def read_job(folder: Path) -> Job:
    """What the folder of a job tells of it."""
    if (results := read_results(folder)) is not None:
        return Job(folder.name, _by_parameter(results["overrides"]), results)
    failed = read_failure(folder)
    return Job(folder.name, _by_parameter(failed["overrides"]), None, failed["reason"])


def report(jobs: Sequence[Job], folder: Path, console: Console, *, by: str) -> None:
    """Write and print what a sweep found, best first; by validation, as who takes the first has not chosen by the test.

    Args:
        jobs: all of them.
        folder: where ``sweep.csv`` and ``heat_map.png`` go.
        console: where the table goes.
        by: the figure of validation to rank by, and to tell first.
    """
    varied = varied_parameters(jobs)
    sign = 1 if BEST_IS[by] == "min" else -1
    ranked = sorted(jobs, key=lambda job: sign * (job.results or {}).get(by, sign * float("inf")))
    found = [name for name in COLUMNS if any(job.results and name in job.results for job in jobs)]
    told = [by, *found]
    _write_csv(ranked, varied, told, folder / "sweep.csv")
    table = _table(ranked, varied, told)
    # On a narrow screen lines may break, but figures must not lose their ends.
    console.width = max(console.width, console.measure(table, options=console.options.update(max_width=1000)).maximum)
    console.print(table)
    for job in ranked:
        if job.results is None:
            console.print(f"job {job.name} failed: {job.failure}", markup=False, highlight=False, soft_wrap=True)
    written = ["sweep.csv"]
    mapped = [name for name in varied if name != "seed"]
    if len(mapped) == 2 and found:
        rows, columns = ((name, values_in_order(jobs, name)) for name in mapped)
        maps = [
            HeatMap(COLUMNS[name].heading, _means(jobs, mapped, name), COLUMNS[name].text)
            for name in found
            if COLUMNS[name].mapped
        ]
        draw_heat_maps(maps, folder / "heat_map.png", rows=rows, columns=columns)
        written.append("heat_map.png")
    console.print(f"{folder}: {', '.join(written)}", markup=False, highlight=False, soft_wrap=True)


def varied_parameters(jobs: Sequence[Job]) -> list[str]:
    """Parameters that do not have one and the same value in all jobs, in the order given.

    >>> jobs = [Job("0", {"seed": "0", "a": "1"}, None), Job("1", {"seed": "0", "a": "2"}, None)]
    >>> varied_parameters(jobs)
    ['a']
    """
    names = list(dict.fromkeys(name for job in jobs for name in job.overrides))
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def values_in_order(jobs: Sequence[Job], name: str) -> list[str]:
    """The values of a parameter over the jobs: by size if all are numbers, else as they first appear."""
    values = list(dict.fromkeys(job.overrides[name] for job in jobs if name in job.overrides))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def _means(jobs: Sequence[Job], parameters: Sequence[str], name: str) -> dict[tuple[str, str], float]:
    """A figure by the values of two parameters, the mean over jobs that differ in nothing else but the seed."""
    cells: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if job.results and name in job.results:
            first, second = (job.overrides[parameter] for parameter in parameters)
            cells.setdefault((first, second), []).append(job.results[name])
    return {cell: mean(values) for cell, values in cells.items()}


def _write_csv(jobs: Sequence[Job], varied: Sequence[str], figures: Sequence[str], target: Path) -> None:
    with written_whole(target) as file:
        writer = csv.writer(file)
        writer.writerow(["job", *varied, *figures, "failure"])
        for job in jobs:
            found = [(job.results or {}).get(name, "") for name in figures]
            values = [job.overrides.get(name, "") for name in varied]
            writer.writerow([job.name, *values, *found, job.failure])


def _table(jobs: Sequence[Job], varied: Sequence[str], figures: Sequence[str]) -> Table:
    columns = [COLUMNS.get(name, Column(name, "{:.4f}".format, False)) for name in figures]
    table = Table(title=f"sweep, best {columns[0].heading} first")
    for heading in ["job", *varied, *(column.heading for column in columns)]:
        table.add_column(heading, justify="right", no_wrap=heading in varied)
    for job in jobs:
        values = [job.overrides.get(name, "") for name in varied]
        known = job.results or {}
        found = [
            column.text(known[name]) if name in known else "-" for name, column in zip(figures, columns, strict=True)
        ]
        if not job.results:
            found[:1] = ["failed"]
        table.add_row(job.name, *values, *found)
    return table


def _by_parameter(overrides: Sequence[str]) -> dict[str, str]:
    """What was given, but for that a sweep was to go on, and how it was to run."""
    given = dict(override.split("=", 1) for override in without_resume(overrides))
    return {name: value for name, value in given.items() if not name.startswith("sweep.")}


def _job_names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit()]
