"""The table of a report, and Table 1 of the thesis beside it, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from memlab.runs.report.collect import Row
from memlab.runs.report.published import OBJECT_MEMORIES, ROWS, TABLE_1, TABLE_1_SETS

MISSING = "missing"
HEADINGS = [
    "data",
    "method",
    "M",
    "epochs",
    "seeds",
    "test accuracy, %",
    "thesis, %",
    "published relative, %",
    "training time, s",
    "peak memory, MiB",
]


def cells(rows: Sequence[Row], names: Mapping[str, str]) -> list[list[str]]:
    """A line for every row; what is not known is a dash.

    Args:
        rows: in their order.
        names: of a data set here to the name by which it is published.
    """
    lines = []
    for row in rows:
        thesis, relative = row.thesis(names), row.relative(names)
        lines.append(
            [
                row.data,
                row.method,
                f"{row.support:,}" if row.support else "-",
                str(row.epochs) if row.epochs is not None else "-",
                str(len(row.accuracies)),
                _accuracy(row),
                f"{thesis:.2f}" if thesis is not None else "-",
                f"{relative.accuracy:.1f} ({relative.method})" if relative is not None else "-",
                f"{row.seconds:,.0f}" if row.seconds is not None else "-",
                f"{row.peak_bytes / 2**20:,.0f}" if row.peak_bytes is not None else "-",
            ]
        )
    return lines


def table_1(rows: Sequence[Row], names: Mapping[str, str]) -> list[list[str]]:
    """Table 1 of the thesis, ours beside its figure; a cell without a run is `MISSING`.

    Of several settings for a cell that with the best validation accuracy stands there.
    """
    lines = []
    for title, keys in ROWS.items():
        line = [title]
        for data in TABLE_1_SETS:
            key = keys[data]
            fitting = [
                row
                for row in rows
                if row.key == key
                and names.get(row.data, row.data) == data
                and (not row.memory or row.memory in OBJECT_MEMORIES)
            ]
            ours = MISSING
            if fitting:
                best = max(fitting, key=lambda row: row.validation)
                ours = _accuracy(best) + (f", {best.data}" if best.data != data else "")
            line.append(f"{ours} (thesis {TABLE_1[key, data]:.2f})")
        lines.append(line)
    return lines


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings), *body]) + "\n"


def comma_separated(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same as CSV."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows([headings, *lines])
    return target.getvalue()


def latex(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same as a LaTeX tabular, with the rules of the booktabs package."""
    body = "".join(" & ".join(map(_escaped, line)) + " \\\\\n" for line in lines)
    head = " & ".join(map(_escaped, headings)) + " \\\\\n"
    columns = "l" * len(headings)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"


def _accuracy(row: Row) -> str:
    spread = f" ± {100 * row.deviation:.2f}" if row.deviation is not None else ""
    return f"{100 * row.mean:.2f}{spread}"


_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
