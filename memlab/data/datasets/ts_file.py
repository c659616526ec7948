"""Files of the UCR/UEA archive of time series, ``.ts``: a head of lines ``@word ...``, then a line for each sequence.

A line has the numbers of one dimension after the other, colons between, and the class at its end:
``1.0,2.0,3.0:0.5,0.5,0.5:a`` is of three steps with two numbers each, of the class a. The format is that of Bagnall et
al. 2018, "The UEA multivariate time series classification archive", less time stamps and missing values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from memlab.data.sequences import Sequences


class TsFile(NamedTuple):
    """What a file holds."""

    sequences: Sequences
    labels: tuple[str, ...] | None
    """(N,) names of classes; None of a file that has none."""
    classes: tuple[str, ...]
    """Those that its head names, in order."""


def read_ts(file: Path) -> TsFile:
    """Read a file.

    Raises:
        ValueError: if it cannot be read, or holds what is no sequence of finite numbers.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"path={file}: cannot be read as a .ts file ({why})") from error
    numbered = [(place, line.strip()) for place, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"]
    head = [line[1:].split() for _, line in numbered if line.startswith("@")]
    words = {name.lower(): rest for name, *rest in filter(None, head)}
    if "data" not in words:
        raise ValueError(f"path={file}: lacks a line @data; must be a .ts file of the UCR/UEA archive")
    if _is_true(words, "timestamps"):
        raise ValueError(f"path={file}: has time stamps; must have the numbers of equal steps alone")
    if "targetlabel" in words:
        raise ValueError(f"path={file}: has a number to be predicted of each sequence; must have classes")
    has_classes = _is_true(words, "classlabel")
    sequences: list[Tensor] = []
    labels: list[str] = []
    classes = tuple(words["classlabel"][1:]) if has_classes else ()
    for place, line in numbered:
        if line.startswith("@"):
            continue
        name = f"path={file}: line {place}"
        dimensions = line.split(":")
        if has_classes:
            labels.append(dimensions.pop().strip())
            if labels[-1] not in classes:
                raise ValueError(f"{name} has the class {labels[-1]!r}; must be one of {', '.join(classes)}")
        if not dimensions:
            raise ValueError(f"{name} has no steps; must have numbers before the class")
        sequences.append(torch.from_numpy(np.stack(list(_numbers(dimensions, name)), axis=1)))
        if (found := sequences[-1].shape[1]) != (first := sequences[0].shape[1]):
            raise ValueError(f"{name} has {found} dimensions; must have {first}, as the lines before")
    if not sequences:
        raise ValueError(f"path={file}: has no line behind @data; must have one for each sequence")
    return TsFile(Sequences.of(sequences), tuple(labels) if has_classes else None, classes)


def _is_true(words: dict[str, list[str]], name: str) -> bool:
    return words.get(name, ["false"])[:1] == ["true"]


def _numbers(dimensions: list[str], name: str) -> Iterator[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """(T,) numbers of each dimension of a line."""
    steps = None
    for place, text in enumerate(dimensions, 1):
        cells = text.strip().split(",")
        if cells == [""]:
            raise ValueError(f"{name} has no steps in dimension {place}; must have one at least")
        try:
            numbers = np.array(cells, dtype=np.float64).astype(np.float32)
        except ValueError:
            numbers = np.array([_number(cell) for cell in cells], dtype=np.float32)
        if not (finite := np.isfinite(numbers)).all():
            step = int(finite.argmin())
            raise ValueError(f"{name} has {cells[step].strip()} in step {step + 1}; must have finite numbers")
        if steps is not None and len(numbers) != steps:
            raise ValueError(
                f"{name} has {len(numbers)} steps in dimension {place} and {steps} before; must be as many"
            )
        steps = len(numbers)
        yield numbers


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
