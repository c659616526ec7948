"""The arguments of ``memlab report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from memlab.runs.report.passage import BEGIN, END
from memlab.runs.report.published import TABLE_1_SETS

DESCRIPTION = """\
Put runs into one table: mean and standard deviation over seeds beside the thesis's figure and the best published
relative, M, epochs, training time and peak memory; and Table 1 of the thesis, where a cell without a run stays missing.

Writes report.md, report.csv, report.tex and pictures: accuracy by epoch (the thesis's Figure 4), against M, against
time, and confusion matrices. Runs that differ in nothing but the seed are one row. Run folders without results.json did
not come to their end; they are named and left out.

Runs of task=questions have tables of their own, questions.csv and questions.tex: the best of several starts by training
loss, mean and standard deviation, published figures, and the error of each task.
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
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="tell also what runs that differ in the seed alone answer together, by the mean of their probabilities",
    )
    parser.add_argument(
        "--into",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"a Markdown file too, in place of what stands there between the lines {BEGIN} and {END}",
    )
    parser.add_argument(
        "--output", type=Path, default=None, help="folder to write, new or empty (default: a new one in outputs/)"
    )


def run(arguments: argparse.Namespace) -> str:
    """Write the report and print it; what was written, in a line."""
    from memlab.runs.report.report import write

    return write(
        arguments.runs,
        published=dict(arguments.compare),
        ensemble=arguments.ensemble,
        output=arguments.output,
        into=arguments.into,
    )


def _pair(word: str) -> tuple[str, str]:
    name, equals, published = word.partition("=")
    if not (name and equals and published in TABLE_1_SETS):
        raise argparse.ArgumentTypeError(f"{word}: must be NAME=SET, SET of {', '.join(TABLE_1_SETS)}")
    return name, published
