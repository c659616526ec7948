"""What was found: tables in Markdown and CSV, and a picture of ranks and wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from memlab.benchmark.problem import OWN
from memlab.benchmark.tables.methods import method_of
from memlab.benchmark.tables.ranks import critical_difference, ranks, win_rates
from memlab.files import named_in_errors, write_whole
from memlab.runs.report.tables import comma_separated, markdown

TEXT, VALUES, PICTURE = "report.md", "results.csv", "ranks.png"
NOT_COMPARED = "-"


class Told(NamedTuple):
    """How a figure is told."""

    name: str
    sign: int
    """1 if the largest is best, -1 if the least is."""
    symbol: str
    """Of the unit."""
    unit: float
    """What is told as 1."""
    digits: int


RANKED = {
    "accuracy": Told("accuracy", 1, "%", 0.01, 2),
    "log_loss": Told("log loss", -1, "nats", 1, 4),
    "auroc": Told("AUROC", 1, "", 1, 4),
}
TIMES = {
    "fit_seconds": Told("time of fitting", -1, "s", 1, 1),
    "predict_seconds": Told("time of answering the test rows", -1, "s", 1, 3),
}


@dataclass(frozen=True)
class Found:
    """What all methods came to on all tables with all seeds."""

    tables: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    records: Mapping[tuple[str, str, int], dict[str, Any]]
    """By table, method and seed."""

    def values(self, figure: str) -> NDArray[np.float64]:
        """(N, k, S) a figure of N tables, k methods and S seeds; NaN where a method has failed."""
        shape = (len(self.tables), len(self.methods), len(self.seeds))
        keys = ((t, m, s) for t in self.tables for m in self.methods for s in self.seeds)
        return np.array([self.records[key].get(figure, np.nan) for key in keys], np.float64).reshape(shape)

    def compared(self, figure: str) -> NDArray[np.float64]:
        """(N, k) means over seeds, larger for better; NaN where a method has failed with one."""
        means: NDArray[np.float64] = self.values(figure).mean(axis=2)
        return means * (RANKED | TIMES)[figure].sign

    def failures(self) -> Iterator[str]:
        """What has failed, a line each."""
        for (table, method, seed), record in self.records.items():
            if "failure" in record:
                yield f"{table}, {method}, seed {seed}: {record['failure']}"


def text(found: Found, about: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    parts = ["# Tables\n", markdown(*ranking(found)), _how(found, about)]
    for figure, told in (RANKED | TIMES).items():
        heading = f"{told.name}, {told.symbol}" if told.symbol else told.name
        parts += [f"## {heading[0].upper()}{heading[1:]}\n", markdown(*by_table(found, figure))]
    if failures := list(found.failures()):
        parts += ["## Failed\n", "\n".join(f"- {each}" for each in failures) + "\n"]
    methods = [f"- {name}: {method_of(name).about}; {_package(found, name)}" for name in found.methods]
    return "\n".join([*parts, "## Methods\n", "\n".join(methods) + "\n"])


def ranking(found: Found) -> tuple[list[str], list[list[str]]]:
    """Headings and lines: mean ranks of each method, best by accuracy first, its wins, and the time it takes."""
    mean_ranks = {figure: ranks(found.compared(figure)).mean(axis=0) for figure in RANKED}
    wins = _means(win_rates(found.compared("accuracy")))
    seconds = found.values("fit_seconds").mean(axis=2).sum(axis=0)
    headings = [
        "method",
        *(f"rank by {told.name}" for told in RANKED.values()),
        "wins, %",
        "time of fitting, s",
    ]
    lines = [
        [
            found.methods[place],
            *(f"{mean_ranks[figure][place]:.2f}" for figure in RANKED),
            _number(wins[place], 0.01, 0),
            _number(seconds[place], 1, 0),
        ]
        for place in mean_ranks["accuracy"].argsort(kind="stable")
    ]
    return headings, lines


def by_table(found: Found, figure: str) -> tuple[list[str], list[list[str]]]:
    """Headings and lines: a figure of each table and method, with its standard deviation over several seeds."""
    told, values = (RANKED | TIMES)[figure], found.values(figure)

    def cell(of_seeds: NDArray[np.float64]) -> str:
        if np.isnan(of_seeds).any():
            return "failed"
        spread = f" ± {_number(of_seeds.std(ddof=1), told.unit, told.digits)}" if len(of_seeds) > 1 else ""
        return _number(of_seeds.mean(), told.unit, told.digits) + spread

    lines = [[name, *map(cell, of_table)] for name, of_table in zip(found.tables, values, strict=True)]
    return ["table", *found.methods], lines


def write(found: Found, about: Mapping[str, Any], folder: Path) -> None:
    """Write the report, all figures as CSV, and the picture if methods can be compared."""
    write_whole(folder / TEXT, text(found, about))
    names = [*RANKED, *TIMES, "chosen", "failure"]
    lines = [[*map(str, key), *(str(record.get(name, "")) for name in names)] for key, record in found.records.items()]
    write_whole(folder / VALUES, comma_separated(["table", "method", "seed", *names], lines))
    if len(found.methods) > 1:
        draw(found, folder / PICTURE)


def draw(found: Found, target: Path) -> None:
    """Mean ranks by accuracy with the critical difference, and who wins over whom on how many tables.

    Args:
        found: of two methods or more.
        target: picture to write.
    """
    values = found.compared("accuracy")
    mean_ranks = ranks(values).mean(axis=0)
    order = mean_ranks.argsort(kind="stable")
    names = [found.methods[place] for place in order]
    figure = Figure(figsize=(7 + 0.7 * len(names), 2 + 0.45 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    _draw_ranks(left, names, mean_ranks[order], tables=len(values))
    _draw_wins(right, names, win_rates(values)[np.ix_(order, order)])
    with named_in_errors(target):
        figure.savefig(target, dpi=130)


def _draw_ranks(axes: Axes, names: Sequence[str], mean_ranks: NDArray[np.float64], *, tables: int) -> None:
    places = range(len(names))
    difference = critical_difference(len(names), tables)
    axes.axvspan(mean_ranks[0], mean_ranks[0] + difference, color="tab:blue", alpha=0.12, linewidth=0)
    for place, name, rank in zip(places, names, mean_ranks, strict=True):
        axes.plot(rank, place, "o", color="tab:orange" if name.startswith(OWN) else "tab:blue")
        axes.annotate(f"{rank:.2f}", (rank, place), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlim=(0.8, len(names) + 0.4), xlabel="mean rank", ylim=(len(names) - 0.5, -0.5))
    axes.set_title(
        f"by accuracy, tables: {tables}; shaded: within\nthe critical difference of {difference:.2f}", fontsize=9
    )
    axes.grid(alpha=0.3, axis="x")


def _draw_wins(axes: Axes, names: Sequence[str], rates: NDArray[np.float64]) -> None:
    axes.imshow(rates, cmap="RdYlBu", vmin=0, vmax=1, aspect="auto")
    for (row, column), rate in np.ndenumerate(rates):
        if row != column:
            colour = "white" if abs(rate - 0.5) > 0.35 else "black"
            axes.text(column, row, f"{rate:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_title("tables on which the method of the line\nis ahead of that of the column", fontsize=9)


def _how(found: Found, about: Mapping[str, Any]) -> str:
    count = len(found.seeds)
    seeds = f"seed {found.seeds[0]}" if count == 1 else f"mean over seeds {', '.join(map(str, found.seeds))}"
    return (
        f"{len(found.tables)} tables, {seeds}, {about['split']} % of the rows to learn from, to choose by and to test"
        f" on, class by class; threads: {about['threads']}, of {about['device']}, load {about['load_average']:.1f} at"
        " the start. Ranks are means over tables, 1 is best; a method that fails is last. Wins are the share of tables"
        " on which it is ahead by accuracy, the mean over the others.\n"
    )


def _package(found: Found, name: str) -> str:
    versions = {
        each["version"] for (_, method, _), each in found.records.items() if method == name and "version" in each
    }
    return " ".join([method_of(name).package, *sorted(map(str, versions))])


def _means(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) over the others; NaN if there are none."""
    others = len(rates) - 1
    return np.nansum(rates, axis=1) / others if others else np.full(1, np.nan)


def _number(value: float, unit: float, digits: int) -> str:
    return NOT_COMPARED if np.isnan(value) else f"{value / unit:,.{digits}f}"
