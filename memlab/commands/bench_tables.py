"""The arguments of ``memlab bench-tables``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from memlab.benchmark.tables.methods import METHODS
from memlab.commands.argument_types import between, list_of, one_of, single
from memlab.commands.given import told_if_unwritable

DESCRIPTION = (
    """\
Measure methods on all tables of a folder, on the same splits, with the same number of threads:

"""
    + "\n".join(f"  {name:<9} {method.about}" for name, method in METHODS.items())
    + """

Accuracy, log loss, AUROC (one against the rest), seconds of fitting and of answering; mean ranks and wins. What is
preprocessed, chosen and stopped by knows no test row, and nothing is fitted anew to the validation rows. Methods whose
packages are not installed are left out, with a line: pip install -e ".[bench-tables]". Neural ones take a GPU if there
is one. A method that fails on a table is noted so, ranked last there, and tried again by the next call.

A table is added by putting its file into FOLDER (.csv, .tsv, .parquet or .xlsx, or one of these and .gz): the last
column has the classes. Where another has, and for files elsewhere, a line of FOLDER/tables.csv tells:

  file,target
  adult.csv,income
  ../more/churn.parquet,left
"""
)
EXAMPLES = """\
examples:
  memlab bench-tables tables
  memlab bench-tables tables --methods knn,catboost,memlab --tables letter,german --seeds 0,1,2
  memlab bench-tables tables --memlab memory=topk --memlab "memory.hops=1 trainer.max_epochs=40"
  memlab bench-tables tables --output outputs/tables      (the same again goes on where it was interrupted)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab bench-tables``."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="has the tables")
    add("--tables", type=list_of(str, "names"), default=None, help="names of files, as letter,german (default: all)")
    add(
        "--target",
        default=None,
        metavar="COLUMN",
        help="column of the classes in tables without a line of their own (default: the last one of each)",
    )
    add(
        "--methods",
        type=list_of(one_of(METHODS), f"of {', '.join(METHODS)}"),
        default=None,
        help=f"of {','.join(METHODS)} (default: all that are installed)",
    )
    add(
        "--memlab",
        action="append",
        default=[],
        metavar="WORDS",
        help="besides, python train.py data=table with these words; may be given several times",
    )
    count = single(between(int, 1, math.inf), "a whole number of at least 1")
    seeds = list_of(between(int, 0, 2**31), "whole numbers of at least 0")
    add("--seeds", type=seeds, default=[0], help="of splits and methods, as 0,1,2 (default: 0)")
    add(
        "--split",
        type=list_of(between(float, 1, 99), "parts of a hundred"),
        default=[64.0, 16.0, 20.0],
        help="parts of a hundred to learn from, to choose by and to test on (default: 64,16,20)",
    )
    add("--threads", type=count, default=1, help="of each method (default: %(default)s)")
    add(
        "--output",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="folder of results.json and .csv, report.md and ranks.png; one with results is gone on with (default: a"
        " new one in outputs/)",
    )


def run(arguments: argparse.Namespace) -> str:
    """Measure, print and write; what was written, in a line."""
    from memlab.benchmark.tables.run import run

    with told_if_unwritable(arguments.output or Path("outputs")):
        return run(arguments)
