"""``memlab info``: what a trained memory is."""

from __future__ import annotations

import argparse

from memlab.commands.given import add_memory, told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab info``."""
    parser.description = "Tell what a trained memory is, and who changed what in it, and when."
    add_memory(parser)


def run(arguments: argparse.Namespace) -> str:
    """What it is and what was done to it."""
    from memlab.trained import load

    memory = load(arguments.memory)
    about, journal = memory.info, memory.journal()
    classes = ", ".join(f"{name} ({count:,})" for name, count in about["classes"].items())
    lines = [f"{name}: {classes if name == 'classes' else value}" for name, value in about.items()]
    for line in journal:
        objects = f"{len(line['ids']):,} objects" if "ids" in line else f"change {line['of']}" if "of" in line else ""
        lines.append(f"change {line['change']}, {line['when']}, {line['who']}: {line['what']} {objects}".rstrip())
    return told(arguments, {**about, "journal": journal}, "\n".join(lines))
