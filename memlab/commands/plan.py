"""``memlab plan``: what a training would take of memory."""

from __future__ import annotations

import argparse

from memlab.commands.given import told

DESCRIPTION = """\
Estimate what a training takes of memory at most, without training and without writing anything: give the words that
`python train.py` is to have. A few steps of a few objects are measured and extrapolated to the sizes given. The peak is
what results.json will tell as peak_memory_bytes: on a CPU what the process holds, on a GPU what torch allocates. Where
it is more than is free here, it is said what to lower to what. The same support read otherwise stands below.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab plan``."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="GROUP=OPTION or PARAMETER=VALUE, as data=mnist memory=chunked support.size=20000",
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, sizes in bytes")


def run(arguments: argparse.Namespace) -> str:
    """The estimate."""
    from memlab.runs.planning import planned, table, values

    found = planned(arguments.words)
    return told(arguments, values(found), table(found))
