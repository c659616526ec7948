"""``memlab relabel``: give stored objects another class."""

from __future__ import annotations

import argparse

from memlab.commands.given import add_memory, ids, told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab relabel``."""
    parser.description = "Give objects of a trained memory another class, a new one too."
    add_memory(parser)
    parser.add_argument("--ids", type=ids, required=True, help="which objects, as 3,17")
    parser.add_argument("--label", required=True, help="the class")


def run(arguments: argparse.Namespace) -> str:
    """Change the labels; what they were."""
    from memlab.trained import load

    before = load(arguments.memory).relabel(arguments.ids, arguments.label)
    lines = (f"object {identity}: {name} -> {arguments.label}" for identity, name in before.items())
    return told(arguments, {"label": arguments.label, "before": before}, "\n".join(lines))
