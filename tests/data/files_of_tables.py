"""A table of a person's kind: numbers, words, yes and no, dates, and cells that are missing."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

JOBS = ["clerk", "farmer", "pilot", "cook"]


def rows(count: int, *, target: str = "class", seed: int = 0) -> list[dict[str, str]]:
    """Rows whose class hangs on a number and a word."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        age, job = draw.randint(18, 80), draw.choice(JOBS)
        made.append(
            {
                "age": str(age) if draw.random() > 0.1 else "?",
                "job": job if draw.random() > 0.1 else "",
                "member": draw.choice(["yes", "no"]),
                "since": str(date(2000, 1, 1) + timedelta(days=draw.randint(0, 9000))),
                target: "high" if age + 15 * (job == "pilot") > 50 else "low",
            }
        )
    return made


def write_table(
    path: Path, given: Sequence[dict[str, str]] | None = None, *, count: int = 400, target: str = "class"
) -> Path:
    """A .csv file of these rows, or of so many."""
    given = rows(count, target=target) if given is None else given
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(given[0]))
        writer.writeheader()
        writer.writerows(given)
    return path
