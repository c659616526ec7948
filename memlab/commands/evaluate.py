"""``memlab evaluate``: measure a trained memory on labelled objects."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from memlab.commands.given import add_memory, add_target, answered, collect, told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab evaluate``."""
    parser.description = "Measure a trained memory on labelled objects, of classes that it does not know too."
    add_memory(parser)
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="a folder <class>/... of pictures, a file of X and y, or a table"
    )
    add_target(parser)
    parser.add_argument("--coverage", type=float, default=None, help="measure sets of classes of this coverage too")


def run(arguments: argparse.Namespace) -> str:
    """Classify and compare; the figures."""
    from memlab.trained import load
    from memlab.trained.evaluation import figures

    memory = load(arguments.memory)
    given = collect(memory, [arguments.data], labelled=True, target=arguments.target)
    assert given.labels is not None
    found = figures(answered(memory, given, k=None, coverage=arguments.coverage), given.labels)
    lines = [
        f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value:.6g}" for name, value in found.items()
    ]
    unknown = Counter(sorted(label for label in given.labels if label not in memory.classes))
    if unknown:
        named = ", ".join(f"{name} ({count:,})" for name, count in unknown.items())
        lines.append(f"not known to the memory, and counted as answered wrong: {named}")
    return told(arguments, {**found, "unknown": unknown}, "\n".join(lines))
