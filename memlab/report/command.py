"""The command ``memlab report``: its arguments, and what it writes."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from memlab.report import pictures, tables
from memlab.report.collect import Row, find_runs, rows_of

DESCRIPTION = """\
Put runs into one table: mean and standard deviation over seeds beside the thesis's figure and the best published
relative, M, epochs, training time and peak memory; and Table 1 of the thesis, where a cell without a run stays missing.

Writes report.md, report.csv, report.tex and pictures: accuracy by epoch (the thesis's Figure 4), against M, against
time, and confusion matrices. Runs that differ in nothing but the seed are one row. Run folders without results.json did
not come to their end; they are named and left out.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab report``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="run folders, sweeps, or folders of these")
    parser.add_argument(
        "--compare",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=SET",
        help="set the data NAME beside the published figures of SET, as --compare cifar10-jpeg=cifar10",
    )
    parser.add_argument("--output", type=Path, default=None, help="folder to write (default: a new one in outputs/)")


def run(arguments: argparse.Namespace) -> int:
    """Write the report; return the exit status."""
    folder = arguments.output or Path("outputs") / f"report_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return _refuse(f"--output {folder}: must be a new or an empty folder, so that nothing in it is lost")
    try:
        runs, unfinished = find_runs(arguments.runs)
    except ValueError as error:
        return _refuse(str(error))
    if not runs:
        return _refuse(f"{arguments.runs[0]}: none of the {len(unfinished)} runs has come to its end")
    rows = rows_of(runs)
    names = dict(arguments.compare)
    folder.mkdir(parents=True, exist_ok=True)
    text = _text(rows, names, unfinished)
    (folder / "report.md").write_text(text)
    (folder / "report.csv").write_text(tables.comma_separated(tables.HEADINGS, tables.cells(rows, names)))
    (folder / "report.tex").write_text(tables.latex(tables.HEADINGS, tables.cells(rows, names)))
    trained = [row for row in rows if row.runs]
    pictures.draw_curves(trained, folder / "curves.png")
    pictures.draw_against_support(trained, folder / "accuracy_by_support.png")
    pictures.draw_against_time(trained, folder / "accuracy_by_time.png")
    pictures.draw_confusion(trained, folder / "confusion.png")
    print(text)
    print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    return 0


def _text(rows: list[Row], names: dict[str, str], unfinished: list[Path]) -> str:
    machines = list(dict.fromkeys(machine for row in rows for machine in row.machines))
    commands = [f"- {row.data}, {row.method}: `{row.command}`" for row in rows if row.command]
    parts = [
        "# Report\n",
        tables.markdown(tables.HEADINGS, tables.cells(rows, names)),
        f"Measured on: {'; '.join(machines)}. Test accuracy of the checkpoint that was best by validation; mean and"
        " standard deviation over seeds.\n",
        "## Table 1 of the thesis\n",
        tables.markdown(["method", *tables.TABLE_1_SETS.values()], tables.table_1(rows, names)),
        "## Commands\n",
        "\n".join(commands) + "\n",
    ]
    if unfinished:
        parts += ["## Without results\n", "\n".join(f"- {folder}" for folder in unfinished) + "\n"]
    return "\n".join(parts)


def _pair(word: str) -> tuple[str, str]:
    name, equals, published = word.partition("=")
    if not (name and equals and published in tables.TABLE_1_SETS):
        raise argparse.ArgumentTypeError(f"{word}: must be NAME=SET, SET of {', '.join(tables.TABLE_1_SETS)}")
    return name, published


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
