"""``memlab audit``: labels of a trained memory that look wrong, and objects that it holds twice."""

from __future__ import annotations

import argparse
from pathlib import Path

from memlab.commands.given import add_memory, progress_bar, told, told_if_unwritable

DESCRIPTION = """\
Read every object of a trained memory with all others. Labels that look wrong come first, with the label that the others
would give; then near duplicates and how each class holds together. It takes as long as to classify as many objects.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab audit``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    parser.add_argument("--limit", type=int, default=20, help="labels and pairs to show (default: %(default)s)")
    parser.add_argument("--html", type=Path, default=None, help="write a page with the pictures and the evidence")


def run(arguments: argparse.Namespace) -> str:
    """Audit; what was found."""
    from memlab.files import write_whole
    from memlab.trained import load
    from memlab.trained.audit_page import audit_page

    memory = load(arguments.memory)
    with progress_bar("auditing", total=len(memory)) as advance:
        found = memory.audit(limit=arguments.limit, progress=advance)
    if arguments.html is not None:
        with told_if_unwritable(arguments.html):
            write_whole(arguments.html, audit_page(memory, found))
    values = found.values(arguments.limit)
    rows, pairs = values["labels"], values["duplicates"]
    lines = [f"{found.suspicious:,} of {len(memory):,} objects are answered with another class than their label"]
    lines += [
        f"id {row['id']} ({row['source']}): {row['label']} ({row['own_mass']:.1%}), or {row['suggested']}"
        f" ({row['suggested_mass']:.1%})?"
        for row in rows
    ]
    lines.append(f"{len(found.duplicates):,} pairs are nearly the same")
    lines += [f"ids {pair['ids'][0]} and {pair['ids'][1]}: {' and '.join(pair['labels'])}" for pair in pairs]
    lines += [f"class {each.name}: {each.objects:,} objects, mean mass {each.own_mass:.1%}" for each in found.classes]
    if arguments.html is not None:
        lines.append(f"page: {arguments.html}")
    return told(arguments, values, "\n".join(lines))
