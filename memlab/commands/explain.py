"""``memlab explain``: a page of answers with their evidence."""

from __future__ import annotations

import argparse
from pathlib import Path

from memlab.commands.given import add_memory, add_queries, answered, collect, told, told_if_unwritable

DESCRIPTION = """\
Write a page of answers with the stored objects that weighed most in them: one HTML file that opens without a network.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab explain``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    add_queries(parser)
    parser.add_argument("--html", type=Path, default=Path("evidence.html"), help="the page (default: %(default)s)")


def run(arguments: argparse.Namespace) -> str:
    """Write the page; where it is."""
    from memlab.files import write_whole
    from memlab.trained import load
    from memlab.trained.explain_page import explain_page

    memory = load(arguments.memory)
    given = collect(memory, arguments.files)
    answer = answered(memory, given, k=arguments.k, coverage=arguments.coverage)
    shown = [raw for batch in memory.kind.batches(given.inputs, len(given.names)) for raw in batch.raw]
    with told_if_unwritable(arguments.html):
        write_whole(arguments.html, explain_page(memory, answer, shown, given.names))
    values = {"html": str(arguments.html), "labels": answer.labels}
    return told(arguments, values, f"{', '.join(answer.labels[:10])}: evidence in {arguments.html}")
