"""What ``memlab report`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from memlab.files import check_new_or_empty, write_whole
from memlab.runs.report import pictures, tables
from memlab.runs.report.collect import Row, find_runs, rows_of
from memlab.runs.report.passage import Passage
from memlab.runs.report.published import TABLE_1_SETS


def write(places: Sequence[Path], *, published: dict[str, str], output: Path | None, into: Path | None) -> str:
    """Write a report and print its tables; what was written, in a line.

    Args:
        places: run folders, folders of sweeps, or folders that hold these.
        published: name of a data set here to the name by which it is published.
        output: folder to write; None for a new one.
        into: a Markdown file in which the report is to stand too, or None; see `memlab.runs.report.passage`.

    Raises:
        ValueError: if there is no run that came to its end, the folder is not empty, or the file has no place for it.
    """
    passage = None if into is None else Passage(into)
    default = Path("outputs") / f"report_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder = check_new_or_empty("--output", output or default)
    runs, unfinished = find_runs(places)
    if not runs:
        raise ValueError(f"{places[0]}: none of the {len(unfinished)} runs has come to its end")
    rows = rows_of(runs)
    cells = tables.cells(rows, published)
    folder.mkdir(parents=True, exist_ok=True)
    text = _text(rows, published, unfinished)
    write_whole(folder / "report.md", text)
    write_whole(folder / "report.csv", tables.comma_separated(tables.HEADINGS, cells))
    write_whole(folder / "report.tex", tables.latex(tables.HEADINGS, cells))
    trained = [row for row in rows if row.runs]
    pictures.draw_curves(trained, folder / "curves.png")
    pictures.draw_against_support(trained, folder / "accuracy_by_support.png")
    pictures.draw_against_time(trained, folder / "accuracy_by_time.png")
    pictures.draw_confusion(trained, folder / "confusion.png")
    if passage is not None:
        passage.write(text)
    print(text)
    return f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}"


def _text(rows: list[Row], names: dict[str, str], unfinished: list[Path]) -> str:
    machines = list(dict.fromkeys(machine for row in rows for machine in row.machines))
    commands = [f"- {row.data}, {row.method}: `{row.command}`" for row in rows if row.command]
    parts = [
        "# Report\n",
        tables.markdown(tables.HEADINGS, tables.cells(rows, names)),
        f"Measured on: {'; '.join(machines)}. Test accuracy of the checkpoint that was best by validation; mean and"
        " standard deviation over seeds.\n",
        "## Table 1 of the thesis\n",
        tables.markdown(["method", *TABLE_1_SETS.values()], tables.table_1(rows, names)),
        "## Commands\n",
        "\n".join(commands) + "\n",
    ]
    if unfinished:
        parts += ["## Without results\n", "\n".join(f"- {folder}" for folder in unfinished) + "\n"]
    return "\n".join(parts)
