"""``memlab condense``: fewer stored objects, and answers that stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memlab.commands.given import add_memory, progress_bar, told, told_if_unwritable

if TYPE_CHECKING:
    from memlab.trained import Measured, TrainedMemory

DESCRIPTION = """\
Keep few objects of a trained memory, chosen so that its answers stay nearly what they are: each object has one of its
class near it still, and classes keep their shares. The others are forgotten, as by `memlab forget`, which cannot be
undone; with --into they stay, and the condensed memory goes into a folder of its own. Accuracy, loss and agreement
before and after are those on the calibration objects, which are held out. --curve tells them for several sizes, and
changes nothing.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab condense``."""
    parser.description = DESCRIPTION
    add_memory(parser)
    parser.add_argument(
        "--keep", type=_share_or_number, default=None, help="share of the objects, as 0.1, or number of them, as 5000"
    )
    parser.add_argument(
        "--into", type=Path, default=None, metavar="FOLDER", help="new folder for it; the memory stays as it is"
    )
    parser.add_argument("--calibrate", action="store_true", help="fit the temperature to the condensed memory then")
    parser.add_argument("--curve", action="store_true", help="change nothing: measure several sizes, or that of --keep")
    parser.add_argument("--figure", type=Path, default=None, metavar="FILE", help="draw the curve, as a .png or .svg")


def run(arguments: argparse.Namespace) -> str:
    """Condense, or measure what that would leave; the figures."""
    from memlab.trained import load

    _check(arguments)
    memory = load(arguments.memory)
    if arguments.curve:
        return _curve(arguments, memory)
    with progress_bar("choosing", total=len(memory)) as advance:
        found = memory.condense(arguments.keep, into=arguments.into, progress=advance)
    values: dict[str, Any] = {**asdict(found), "folder": str(found.folder)}
    lines = [f"{found.kept:,} objects kept, {len(found.ids):,} left out: {found.folder}"]
    for name in ("before", "after"):
        measured: Measured | None = getattr(found, name)
        values[name] = None if measured is None else measured._asdict()
        lines += [] if measured is None else [f"{name:6} {_line(measured)}"]
    if arguments.calibrate:
        values["calibrated"] = load(found.folder).calibrate()
        lines.append(
            f"temperature {values['calibrated']['temperature']:.4g}, nll {values['calibrated']['nll_after']:.4f}"
        )
    lines += [f"digest before {found.digest_before}", f"digest after  {found.digest_after}"]
    lines += [f"not undone: {words}" for words in found.not_undone]
    return told(arguments, values, "\n".join(lines))


def _check(arguments: argparse.Namespace) -> None:
    """See that what is given goes together.

    Raises:
        ValueError: if it does not.
    """
    if arguments.keep is None and not arguments.curve:
        raise ValueError("keep: must be given, as --keep 0.1, or --curve to see what sizes leave")
    if arguments.curve and (arguments.into is not None or arguments.calibrate):
        raise ValueError("curve: changes and writes no memory; --into and --calibrate must be left out")
    if arguments.figure is not None and not arguments.curve:
        raise ValueError(f"figure={arguments.figure}: is of the curve; must be given with --curve")


def _curve(arguments: argparse.Namespace, memory: TrainedMemory) -> str:
    sizes = None if arguments.keep is None else [arguments.keep]
    with progress_bar("choosing", total=len(memory)) as advance:
        found = memory.condensation_curve(sizes, progress=advance)
    if arguments.figure is not None:
        with told_if_unwritable(arguments.figure):
            _draw(found, arguments.figure, title=str(memory.info.get("data", "a memory")))
    return told(arguments, [each._asdict() for each in found], "\n".join(map(_line, found)))


def _line(measured: Measured) -> str:
    return (
        f"{measured.objects:>9,} objects: accuracy {measured.accuracy:.4f}, nll {measured.nll:.4f}, answers as before"
        f" {measured.agreement:.2%}"
    )


def _draw(found: Sequence[Measured], target: Path, *, title: str) -> None:
    from matplotlib.figure import Figure

    from memlab.files import named_when_whole

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    figure.suptitle(f"{title}, condensed", fontsize=10, parse_math=False)
    sizes = [each.objects for each in found]
    left, right = figure.subplots(1, 2)
    left.plot(sizes, [100 * each.accuracy for each in found], "-o", markersize=3, label="accuracy")
    left.plot(sizes, [100 * each.agreement for each in found], "--o", markersize=3, label="answers as of all objects")
    left.set(ylabel="%")
    left.legend(loc="lower right")
    right.plot(sizes, [each.nll for each in found], "-o", markersize=3)
    right.set(ylabel="nll, nats")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="stored objects")
        axes.grid(alpha=0.3)
    suffix = target.suffix.removeprefix(".") or "png"
    if suffix not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"figure={target}: no such kind of picture; must end in .png or .svg")
    with named_when_whole(target) as unfinished:
        figure.savefig(unfinished, dpi=130, format=suffix)


def _share_or_number(text: str) -> float:
    """An argument that is a share if it has a point, else a whole number.

    >>> _share_or_number("0.1"), _share_or_number("500")
    (0.1, 500)
    """
    try:
        return int(text) if text.strip().isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be a share, as 0.1, or a whole number, as 5000") from None
