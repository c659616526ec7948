"""What each encoder of ``conf/encoder`` costs for objects of a shape."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig

from memlab.encoders.costs import Cost, cost_of
from memlab.runs.composition import conf_folder, groups_of
from memlab.runs.encoding import without_options
from memlab.runs.mistakes import one_line
from memlab.runs.parts import SETUP_ERRORS


class Costs(NamedTuple):
    """Of all encoders that take objects of a shape."""

    shape: tuple[int, ...]
    costs: dict[str, Cost]
    """By option."""
    refused: dict[str, str]
    """Why others do not take them, in a line."""


def costs_of_encoders(shape: Sequence[int], words: Sequence[str] = ()) -> Costs:
    """Make every encoder for objects of a shape, and count.

    Args:
        shape: of one object.
        words: ``encoder.PARAMETER=VALUE``; an encoder without that parameter is left out.

    Raises:
        ValueError: for a word that is none of these, or if no encoder is left; in one line.
    """
    for word in words:
        if not word.startswith("encoder.") or "=" not in word:
            raise ValueError(f"{word}: must be encoder.PARAMETER=VALUE, as encoder.hidden_size=64")
    conf = str(conf_folder())
    sys.path.append(str(Path.cwd()))  # last: where `_target_` finds classes of the user's own
    found = Costs(tuple(shape), {}, {})
    for option in groups_of(conf)["encoder"]:
        try:
            with hydra.initialize_config_dir(conf, version_base="1.3"):
                cfg = hydra.compose("config", [f"encoder={option}", *words])
        except HydraException:  # it has no such parameter
            continue
        try:
            found.costs[option] = cost_of(instantiate(without_options(cfg).encoder, input_shape=tuple(shape)), shape)
        except (*SETUP_ERRORS, RuntimeError, TypeError) as error:  # torch's own layers tell of shapes so
            found.refused[option] = one_line(error, lambda: DictConfig({}))
    if not found.costs:
        why = "; ".join(dict.fromkeys(found.refused.values())) or f"{' '.join(words)}: no encoder has such parameters"
        raise ValueError(why)
    return found


def table(found: Costs) -> str:
    """The costs in words, formulas beside."""
    rows = [("encoder", "parameters", "multiplications", "parameters of a cell", "multiplications of a step")]
    for option, cost in found.costs.items():
        formulas = ("", "") if cost.cell is None or cost.step is None else (str(cost.cell), str(cost.step))
        rows.append((option, f"{cost.parameters:,}", f"{cost.multiplications:,}", *formulas))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{'>' if 0 < place < 3 else '<'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in rows
    ]
    lines.append("")
    if len(found.shape) == 2 and any(cost.cell for cost in found.costs.values()):
        steps, features = found.shape
        lines.append(f"m = {features} numbers of a step, of which an object has {steps}; n = hidden_size; a cell for")
        lines.append("each layer and direction. Torch's cells, of elman and lstm, have two biases where one would do.")
    if found.refused:
        lines.append(f"Other objects are for {', '.join(found.refused)}.")
    return "\n".join(lines)


def values(found: Costs) -> dict[str, Any]:
    """The costs as plain values."""
    return {
        option: {
            "parameters": cost.parameters,
            "multiplications": cost.multiplications,
            "cell": None if cost.cell is None else str(cost.cell),
            "step": None if cost.step is None else str(cost.step),
        }
        for option, cost in found.costs.items()
    }
