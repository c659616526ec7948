"""The command ``memlab``; training is ``python train.py``."""

from __future__ import annotations

import argparse
import os
import sys

from memlab.benchmark import command as bench
from memlab.report import command as report


def main(words: list[str] | None = None) -> int:
    """Run the command that the words name; return the exit status."""
    parser = argparse.ArgumentParser(prog="memlab", description="Differentiable nearest-neighbour classification.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    bench.add_arguments(commands.add_parser("bench", help="measure time and memory beside other libraries"))
    report.add_arguments(commands.add_parser("report", help="put runs into one table beside published figures"))
    arguments = parser.parse_args(words)
    try:
        return bench.run(arguments) if arguments.command == "bench" else report.run(arguments)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # its reader, as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
