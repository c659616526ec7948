"""``memlab doctor``: what it is installed with and on, and what is wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab doctor``."""
    parser.description = (
        "Tell versions, extras, processor, memory, GPUs and disks, and what is wrong with them and what to do; exit"
        " status 1 if something is."
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def run(arguments: argparse.Namespace) -> str:
    """What there is.

    Raises:
        ValueError: if something is wrong with it, when that is printed.
    """
    from memlab.runs.installation import inspect

    found = inspect(Path.cwd())
    words = json.dumps({**found.sections, "problems": found.problems}, indent=2) if arguments.json else str(found)
    if found.problems:
        print(words)
        raise ValueError(f"{len(found.problems)} {'problem' if len(found.problems) == 1 else 'problems'}, told above")
    return words
