"""Sequences whose class is told by which of two numbers rises, in the formats that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TS_HEAD = "@classLabel true a b\n@data\n"


def arrays(count: int, *, seed: int = 0) -> dict[str, Any]:
    """``X`` (count, 9, 2), ``lengths`` from 3 to 9, and ``y``, ``up`` or ``down``."""
    random = np.random.default_rng(seed)
    lengths, y = random.integers(3, 10, count), np.array(["up", "down"])[np.arange(count) % 2]
    x = random.normal(size=(count, 9, 2)) + 100
    x[:, :, 0] += np.where(y == "up", 1, -1)[:, None] * np.arange(9)
    return {"X": x, "lengths": lengths, "y": y}


def write_archive(folder: Path, *, train: int, test: int) -> Path:
    """A folder NAME with NAME_TRAIN.ts and NAME_TEST.ts, as the UCR/UEA archive has it."""
    folder.mkdir()
    for seed, (part, count) in enumerate((("TRAIN", train), ("TEST", test))):
        given = arrays(count, seed=seed)
        lines = [
            ":".join([*(",".join(map(repr, column)) for column in x[:length].T.tolist()), str(label)])
            for x, length, label in zip(given["X"], given["lengths"], given["y"], strict=True)
        ]
        head = ["# made up", "@problemName Two", "@timeStamps false", "@univariate false", "@classLabel true up down"]
        (folder / f"{folder.name}_{part}.ts").write_text("\n".join([*head, "", "@data", *lines, ""]))
    return folder
