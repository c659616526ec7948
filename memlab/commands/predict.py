"""``memlab predict``: classify files with a trained memory, or answer questions over a story."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memlab.commands.given import add_memory, add_queries, answered, collect, told, told_if_unwritable, typed

if TYPE_CHECKING:
    from memlab.questions.answered import AnsweredQuestion
    from memlab.trained import Answer

SHOWN = 0.005
"""Least weight of a sentence in any hop that is shown."""

DESCRIPTION = """\
Classify picture files, folders of them, the rows X of a .npz, .pt or .safetensors file, those of a table, or texts, of
a file or given with --text, with a trained memory. A table, .csv, .tsv or .parquet, has columns of numbers in the order
of training, below a line of names or without one. Each answer has its probability, the stored objects that weighed most
in it, and, of a memory with calibration objects, its credibility: small, if no class fits as well as true classes do.

A run of task=questions is asked with --story and --question, and tells the sentences that it has read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab predict``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    add_queries(parser, at_least_one=False)
    parser.add_argument("--story", type=Path, default=None, metavar="FILE", help="a story, a sentence on each line")
    parser.add_argument("--question", action="append", default=[], metavar="TEXT", help="about it; may be given again")
    parser.add_argument(
        "--text", action="append", nargs="+", default=[], help="a text, or two of a pair; may be given again"
    )
    parser.add_argument("--csv", type=Path, default=None, help="write the answers and all probabilities to this file")


def run(arguments: argparse.Namespace) -> str:
    """Classify, or answer questions; the answers."""
    from memlab.trained import load
    from memlab.trained.story_network import has_network

    if arguments.story is not None or arguments.question or has_network(arguments.memory):
        return _asked(arguments)
    if bool(arguments.files) == bool(arguments.text):
        raise ValueError("FILES: must be given, what is to be classified; or --text, and not both")
    memory = load(arguments.memory)
    given = typed(memory, arguments.text) if arguments.text else collect(memory, arguments.files)
    answer = answered(memory, given, k=arguments.k, coverage=arguments.coverage)
    if arguments.csv is not None:
        _write_csv(arguments.csv, answer, given.names)
        rows = [{"csv": str(arguments.csv), "objects": len(answer)}]
        return told(arguments, rows, f"{len(answer):,} answers written to {arguments.csv}")
    rows = [{"input": name, **row} for name, row in zip(given.names, answer.rows(), strict=True)]
    return told(arguments, rows, "\n".join(map(_line, rows)))


def _asked(arguments: argparse.Namespace) -> str:
    """The answers to questions over a story, each with what was read for it."""
    from memlab.data.stories import read_sentences
    from memlab.trained.story_network import load_network

    if arguments.files or arguments.csv is not None or arguments.k is not None or arguments.coverage is not None:
        raise ValueError("--story: is asked about alone; FILES, --csv, --k and --coverage are for classification")
    if arguments.story is None or not arguments.question:
        missing = "--story" if arguments.story is None else "--question"
        raise ValueError(f"{missing}: must be given, as a run of task=questions is asked with --story and --question")
    network = load_network(arguments.memory)
    sentences = read_sentences(arguments.story)
    answers = [network.answer(sentences, question) for question in arguments.question]
    for unknown in dict.fromkeys(word for answer in answers for word in answer.unknown):
        print(f"warning: {unknown}: is a word that training has not seen; read as any such word", file=sys.stderr)
    return told(arguments, [asdict(answer) for answer in answers], "\n\n".join(map(_told_answer, answers)))


def _told_answer(answer: AnsweredQuestion) -> str:
    """The question, the answer, and the sentences with their weights, hop by hop; those that weigh nothing left out."""
    lines = [f"{answer.question} {answer.answer} ({answer.probability:.1%})"]
    rows = [
        ([hop[place] for hop in answer.weights], f"{place + 1} {told}") for place, told in enumerate(answer.sentences)
    ]
    for weights, read in (*rows, (answer.nothing, "nothing")):
        if any(abs(weight) >= SHOWN for weight in weights):
            lines.append(f"  {'  '.join(f'{weight:6.1%}' for weight in weights)}  {read}")
    return "\n".join(lines)


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
