"""The arguments of ``memlab bench``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from memlab.benchmark.problem import INPUT_SHAPES, TASKS
from memlab.commands.argument_types import between, list_of, one_of, single

DESCRIPTION = (
    """\
Measure memlab beside what you would otherwise take, in one run, on the same data:

"""
    + "\n".join(f"  {name:<11} {what}" for name, what in TASKS.items())
    + """

Each contender has a process of its own. Its peak memory is what that process grows by in its first call, on a GPU
what torch allocates at most; times are medians over rounds in which all take turns. Ratios are to memlab full, those
of a search to memlab exact, of an audit to memlab audit, of a fit to the loop, of a start to python -c pass; and to
the arithmetic alone: the products, and in a step the encodings, without which it cannot be done. A fit that is
unguarded looks for no loss that is not finite, and keeps checkpoints as Lightning does. A fit and a start have no M,
and their memory is not measured. Rivals of other packages take part where these are installed: pip install -e
".[bench]"; KeOps, which takes minutes on a CPU, there only if --contenders names it. train.py is started where memlab
is a clone, and left out elsewhere.
"""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab bench``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    count = between(int, 1, math.inf)
    counts = list_of(count, "whole numbers of at least 1")
    count = single(count, "a whole number of at least 1")
    add = parser.add_argument
    add(
        "--tasks",
        type=list_of(one_of(TASKS), f"of {', '.join(TASKS)}"),
        default=None,
        help=f"of {', '.join(TASKS)} (default: all)",
    )
    add("--sizes", type=counts, default=[4096, 16384, 65536], help="M (default: 4096,16384,65536)")
    add("--batch-size", type=count, default=256, help="B, queries (default: %(default)s)")
    add("--embedding-size", type=count, default=64, help="D (default: %(default)s)")
    add("--classes", type=count, default=10, help="C (default: %(default)s)")
    add("--nearest", type=count, default=32, help="K, of a search and of topk (default: %(default)s)")
    add("--encoder", choices=list(INPUT_SHAPES), default="mlp", help="of a step (default: %(default)s)")
    add("--chunks", type=counts, default=[1024], help="chunk sizes (default: 1024)")
    add(
        "--budgets",
        type=list_of(between(float, 0.01, 1.01), "shares from 0.01 to 1"),
        default=[0.5, 0.9],
        help="shares of the graphs that chunked keeps, besides none (default: 0.5,0.9)",
    )
    add(
        "--run",
        dest="run_folder",
        type=Path,
        default=None,
        metavar="RUN",
        help="a run folder, trained with data.flip_labels, for the audit (default: none, and no audit)",
    )
    add(
        "--world",
        type=counts,
        default=None,
        metavar="WORLDS",
        help="numbers of processes that share a step out, as 1,2,4, by the first of --chunks (default: none, and no"
        " world); alone, it is all that is measured",
    )
    add("--contenders", default="", help="only those whose name holds one of these words, as full,chunked,checkpoint")
    add("--rounds", type=count, default=5, help="rounds of times (default: %(default)s)")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
    add("--threads", type=count, default=None, help="on a CPU (default: as torch chooses)")
    add(
        "--raise-malloc-thresholds",
        action="store_true",
        help="let glibc keep freed memory, as the trainer does on a CPU; without it glibc's defaults hold",
    )
    add(
        "--seed",
        type=single(between(int, 0, math.inf), "a whole number of at least 0"),
        default=0,
        help="of data and weights (default: %(default)s)",
    )
    add("--output", type=Path, default=None, help="folder of benchmark.json and .png (default: a new one in outputs/)")


def run(arguments: argparse.Namespace) -> str:
    """Measure, print and write; what was written, in a line."""
    from memlab.benchmark.run import run

    return run(arguments)
