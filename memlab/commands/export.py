"""``memlab export``: a trained memory for programs without memlab."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from memlab.commands.given import add_memory, told, told_if_unwritable

DESCRIPTION = """\
Write the encoder of a trained memory with its preprocessing as ONNX (raw inputs to embeddings), and the stored objects
as Parquet (id, label, source, vector). The two are all that it takes to classify: the softmax of the similarity of an
embedding with all vectors, added up by label. What else a reader must know, as scale and classes, is in both files as
JSON under "memlab". The ONNX file is compared with torch before it is kept.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab export``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    parser.add_argument("--onnx", type=Path, default=None, metavar="FILE", help="the encoder")
    parser.add_argument("--parquet", type=Path, default=None, metavar="FILE", help="the stored objects")


def run(arguments: argparse.Namespace) -> str:
    """Write the files; how the encoder compares."""
    from memlab.trained import load
    from memlab.trained.export import TOLERANCE

    if arguments.onnx is None and arguments.parquet is None:
        raise ValueError("export: must be given a file to write, --onnx, --parquet or both")
    memory = load(arguments.memory)
    values: dict[str, Any] = {}
    lines = []
    if arguments.onnx is not None:
        with told_if_unwritable(arguments.onnx):
            found = memory.export_onnx(arguments.onnx)
        values |= {"onnx": str(arguments.onnx), **found._asdict(), "tolerance": TOLERANCE}
        lines.append(
            f"encoder: {arguments.onnx}; of {found.objects} {'stored' if found.are_stored else 'random'} objects its"
            f" embeddings differ by {found.difference:.1e} from torch's (at most {TOLERANCE:.0e}), by"
            f" {found.from_memory:.1e} from the memory's own, over the largest number"
        )
    if arguments.parquet is not None:
        with told_if_unwritable(arguments.parquet):
            memory.export_parquet(arguments.parquet)
        values |= {"parquet": str(arguments.parquet), "rows": len(memory)}
        lines.append(f"objects: {arguments.parquet}; {len(memory):,} rows")
    return told(arguments, values, "\n".join(lines))
