"""``memlab encoders``: what each encoder costs."""

from __future__ import annotations

import argparse

from memlab.commands.given import told

DESCRIPTION = """\
Parameters of every encoder that takes objects of a shape, as `conf/encoder` has it, and the multiplications of its
matrix products and convolutions for one object; of recurrent cells with the formulas.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab encoders``."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="encoder.PARAMETER=VALUE, as encoder.hidden_size=64; for those that have it",
    )
    parser.add_argument(
        "--input",
        type=shape,
        required=True,
        metavar="SHAPE",
        help="of one object: 50x32 a sequence, 50 steps of 32 numbers; 1x28x28 an image; 20 a vector",
    )
    parser.add_argument("--hidden", type=int, metavar="N", help="encoder.hidden_size=N")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def shape(text: str) -> tuple[int, ...]:
    """An argument of sizes with x between.

    >>> shape("50x32")
    (50, 32)
    """
    try:
        sizes = tuple(map(int, text.split("x")))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be sizes with x between, as 50x32")
    return sizes


def run(arguments: argparse.Namespace) -> str:
    """The table."""
    from memlab.runs.encoder_costs import costs_of_encoders, table, values

    hidden = [] if arguments.hidden is None else [f"encoder.hidden_size={arguments.hidden}"]
    found = costs_of_encoders(arguments.input, [*arguments.words, *hidden])
    return told(arguments, values(found), table(found))
