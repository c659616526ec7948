"""The command ``memlab``; training is ``python train.py``."""

from __future__ import annotations

import argparse
import os
import sys

from memlab.commands import (
    add,
    audit,
    bench,
    bench_tables,
    condense,
    doctor,
    encoders,
    evaluate,
    explain,
    export,
    forget,
    info,
    plan,
    predict,
    relabel,
    report,
    serve,
    undo,
)

COMMANDS = {
    "predict": (predict, "classify files with a trained memory"),
    "explain": (explain, "a page of answers with their evidence"),
    "evaluate": (evaluate, "measure a trained memory on labelled files"),
    "info": (info, "what a trained memory is, and who changed it"),
    "serve": (serve, "ask and teach it over HTTP, with a page"),
    "audit": (audit, "labels in it that look wrong, and near duplicates"),
    "add": (add, "teach it objects, of new classes too, without training"),
    "forget": (forget, "take objects out of it for good"),
    "relabel": (relabel, "give stored objects another class"),
    "undo": (undo, "take the last change back"),
    "condense": (condense, "keep few of its objects, chosen so that answers stay"),
    "export": (export, "write it as ONNX and Parquet, for programs without memlab"),
    "plan": (plan, "estimate what a training takes of memory, before it"),
    "encoders": (encoders, "parameters and multiplications of each encoder"),
    "bench": (bench, "measure time and memory beside other libraries"),
    "bench-tables": (bench_tables, "measure methods on many tables, ranked"),
    "doctor": (doctor, "what it is installed with and on, and what is wrong"),
    "report": (report, "put runs into one table beside published figures"),
}


def main(words: list[str] | None = None) -> int:
    """Run the command that the words name; return the exit status."""
    parser = argparse.ArgumentParser(prog="memlab", description="Differentiable nearest-neighbour classification.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (command, purpose) in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=purpose))
    arguments = parser.parse_args(words)
    try:
        command, _ = COMMANDS[arguments.command]
        print(command.run(arguments))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # its reader, as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
