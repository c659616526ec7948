"""``memlab add``: teach a trained memory without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from memlab.commands.given import FILES, add_memory, add_target, collect, told

DESCRIPTION = """\
Take objects into a trained memory, of new classes too; nothing is trained. `memlab undo` takes them out again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab add``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILES", help=FILES)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--label",
        default=None,
        help="class of all of them (default: the folders <class>/... of pictures, y beside X, or --target tell)",
    )
    add_target(which)


def run(arguments: argparse.Namespace) -> str:
    """Take the objects in; their ids."""
    from memlab.trained import load

    memory = load(arguments.memory)
    given = collect(memory, arguments.files, labelled=arguments.label is None, target=arguments.target)
    found = memory.add(given.inputs, given.labels or arguments.label)
    values = {"ids": found, "objects": len(memory), "classes": list(memory.classes)}
    span = f"{found[0]} to {found[-1]}" if found else "none"
    return told(arguments, values, f"{len(found):,} objects added, ids {span}; {len(memory):,} in the memory")
