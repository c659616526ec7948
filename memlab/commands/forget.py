"""``memlab forget``: take objects out of a trained memory for good."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from memlab.commands.given import add_memory, ids, told

DESCRIPTION = """\
Take objects out of a trained memory for good: no file of it holds a byte of them afterwards, and what it predicts is
what a memory predicts that never held them. This cannot be undone, nor what was done before it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab forget``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ids", type=ids, default=None, help="which objects, as 3,17")
    which.add_argument("--label", default=None, help="all objects of a class")
    which.add_argument("--source", default=None, metavar="FILE", help="all objects from a file")


def run(arguments: argparse.Namespace) -> str:
    """Take them out; the receipt."""
    from memlab.trained import load

    memory = load(arguments.memory)
    receipt = memory.forget(arguments.ids, class_=arguments.label, source=arguments.source)
    lines = [
        f"{len(receipt.ids):,} objects forgotten: {', '.join(map(str, receipt.ids))}",
        f"digest before {receipt.digest_before}",
        f"digest after  {receipt.digest_after}",
        *(f"not undone: {words}" for words in receipt.not_undone),
    ]
    return told(arguments, asdict(receipt), "\n".join(lines))
