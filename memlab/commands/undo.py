"""``memlab undo``: take the last change of a trained memory back."""

from __future__ import annotations

import argparse

from memlab.commands.given import add_memory, told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab undo``."""
    parser.description = "Take back the last add or relabel that is not taken back yet; what was forgotten is gone."
    add_memory(parser)


def run(arguments: argparse.Namespace) -> str:
    """Take the change back; which it was."""
    from memlab.trained import load

    undone = load(arguments.memory).undo()
    what = f"change {undone['change']} of {undone['when']} by {undone['who']}"
    return told(arguments, undone, f"taken back: {undone['what']} of {len(undone['ids']):,} objects, {what}")
