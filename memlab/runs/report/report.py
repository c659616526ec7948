"""What ``memlab report`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from memlab.files import check_new_or_empty, write_whole
from memlab.runs.report import ensembles, pictures, questions, tables
from memlab.runs.report.collect import Row, find_runs, rows_of
from memlab.runs.report.passage import Passage
from memlab.runs.report.published import TABLE_1_SETS


def write(
    places: Sequence[Path],
    *,
    published: dict[str, str],
    ensemble: bool = False,
    output: Path | None,
    into: Path | None,
) -> str:
    """Write a report and print its tables; what was written, in a line.

    Args:
        places: run folders, folders of sweeps, or folders that hold these.
        published: name of a data set here to the name by which it is published.
        ensemble: whether to tell what the runs of a row would answer together.
        output: folder to write; None for a new one.
        into: a Markdown file in which the report is to stand too, or None; see `memlab.runs.report.passage`.

    Raises:
        ValueError: if there is no run that came to its end, the folder is not empty, the file has no place for it, or
            runs cannot answer together.
    """
    passage = None if into is None else Passage(into)
    default = Path("outputs") / f"report_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder = check_new_or_empty("--output", output or default)
    runs, unfinished = find_runs(places)
    if not runs:
        raise ValueError(f"{places[0]}: none of the {len(unfinished)} runs has come to its end")
    asked = [run for run in runs if run.results.get("task") == questions.TASK]
    classified = [run for run in runs if run not in asked]
    rows = rows_of(classified)
    together = ensembles.ensembles_of(rows) if ensemble else []
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(
        [
            "# Report\n",
            *(_classified(rows, published, folder) if classified else []),
            *(_together(together, folder) if together else []),
            *(_asked(questions.rows_of(asked), folder) if asked else []),
            *(["## Without results\n", "\n".join(f"- {each}" for each in unfinished) + "\n"] if unfinished else []),
        ]
    )
    write_whole(folder / "report.md", text)
    if passage is not None:
        passage.write(text)
    print(text)
    return f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}"


def _classified(rows: list[Row], names: dict[str, str], folder: Path) -> list[str]:
    """Write tables and pictures of classifiers; the parts of the text."""
    cells = tables.cells(rows, names)
    write_whole(folder / "report.csv", tables.comma_separated(tables.HEADINGS, cells))
    write_whole(folder / "report.tex", tables.latex(tables.HEADINGS, cells))
    trained = [row for row in rows if row.runs]
    pictures.draw_curves(trained, folder / "curves.png")
    pictures.draw_against_support(trained, folder / "accuracy_by_support.png")
    pictures.draw_against_time(trained, folder / "accuracy_by_time.png")
    pictures.draw_confusion(trained, folder / "confusion.png")
    machines = list(dict.fromkeys(machine for row in rows for machine in row.machines))
    commands = [f"- {row.data}, {row.method}: `{row.command}`" for row in rows if row.command]
    return [
        tables.markdown(tables.HEADINGS, cells),
        f"Measured on: {'; '.join(machines)}. Test accuracy of the checkpoint that was best by validation; mean and"
        " standard deviation over seeds.\n",
        "## Table 1 of the thesis\n",
        tables.markdown(["method", *TABLE_1_SETS.values()], tables.table_1(rows, names)),
        "## Commands\n",
        "\n".join(commands) + "\n",
    ]


def _together(found: list[ensembles.Ensemble], folder: Path) -> list[str]:
    """Write the table of ensembles; the parts of the text."""
    cells = ensembles.cells(found)
    write_whole(folder / "ensembles.csv", tables.comma_separated(ensembles.HEADINGS, cells))
    return [
        "## Ensembles\n",
        tables.markdown(ensembles.HEADINGS, cells),
        "Together: the mean of the class masses of all runs for each test object; one by one: mean and standard"
        " deviation over the runs.\n",
    ]


def _asked(rows: list[questions.Row], folder: Path) -> list[str]:
    """Write tables of networks over stories; the parts of the text."""
    cells = questions.cells(rows)
    write_whole(folder / "questions.csv", tables.comma_separated(questions.HEADINGS, cells))
    write_whole(folder / "questions.tex", tables.latex(questions.HEADINGS, cells))
    parts = [
        "## Questions over stories\n",
        tables.markdown(questions.HEADINGS, cells),
        "Error: the mean over the tasks of the share of test questions answered wrong, by the checkpoint that was best"
        " by validation; a task is failed whose error is above 5 %; mean and standard deviation over starts.\n",
    ]
    for data in dict.fromkeys(row.data for row in rows):
        parts += [
            f"### {data}, error by task, %; of several starts that of the least training loss\n",
            tables.markdown(*questions.by_task(rows, data)),
        ]
    return [*parts, "### Commands\n", "\n".join(f"- `{row.command}`" for row in rows if row.command) + "\n"]
