"""``memlab predict``: classify files with a trained memory."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memlab.commands.given import add_memory, add_queries, answered, collect, told, told_if_unwritable

if TYPE_CHECKING:
    from memlab.trained import Answer

DESCRIPTION = """\
Classify picture files, folders of them, the rows X of a .npz, .pt or .safetensors file, or those of a table with a
trained memory. A table, .csv, .tsv or .parquet, has columns of numbers in the order of training, below a line of names
or without one. Each answer has its probability, the stored objects that weighed most in it, and, of a memory with
calibration objects, its credibility: small, if no class fits as well as true classes do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab predict``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    add_queries(parser)
    parser.add_argument("--csv", type=Path, default=None, help="write the answers and all probabilities to this file")


def run(arguments: argparse.Namespace) -> str:
    """Classify; the answers, a line for each."""
    from memlab.trained import load

    memory = load(arguments.memory)
    given = collect(memory, arguments.files)
    answer = answered(memory, given, k=arguments.k, coverage=arguments.coverage)
    if arguments.csv is not None:
        _write_csv(arguments.csv, answer, given.names)
        rows = [{"csv": str(arguments.csv), "objects": len(answer)}]
        return told(arguments, rows, f"{len(answer):,} answers written to {arguments.csv}")
    rows = [{"input": name, **row} for name, row in zip(given.names, answer.rows(), strict=True)]
    return told(arguments, rows, "\n".join(map(_line, rows)))


def _line(row: Mapping[str, Any]) -> str:
    facts = [f"{row['probabilities'][row['label']]:.1%}"]
    if row["credibility"] is not None:
        facts.append(f"credibility {row['credibility']:.3f}")
    if "set" in row:
        facts.append(f"set {{{', '.join(row['set'])}}}")
    pieces = [f"{each['label']} {each['weight']:.1%} (id {each['id']}, {each['source']})" for each in row["evidence"]]
    evidence = f"; evidence: {', '.join(pieces)}" if pieces else ""
    return f"{row['input']}: {row['label']} ({', '.join(facts)}){evidence}"


def _write_csv(target: Path, answer: Answer, names: list[str]) -> None:
    import csv

    from memlab.files import written_whole

    known = answer.view.calibration is not None
    columns = {"novelty": answer.novelty, **({"credibility": answer.credibility} if known else {})}
    with told_if_unwritable(target), written_whole(target) as file:
        writer = csv.writer(file)
        sets = ["set"] if answer.coverage is not None else []
        masses = [f"p({name})" for name in answer.classes]
        writer.writerow(["input", "label", *columns, *sets, *masses, "evidence"])
        for place, name in enumerate(names):
            chosen = ["|".join(answer.sets[place])] if sets else []
            figures = [float(column[place]) for column in columns.values()]
            mass = [f"{value:.9g}" for value in answer.probabilities[place].tolist()]
            ids = "|".join(str(each) for each in answer.evidence.ids[place].tolist() if each >= 0)
            writer.writerow([name, answer.labels[place], *figures, *chosen, *mass, ids])
