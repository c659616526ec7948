"""``metrics.csv``: everything logged, a line for each time; a run that goes on in its folder goes on in the file."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from memlab.files import named_in_errors, written_whole

FILE = "metrics.csv"
LINES_AT_A_TIME = 100


class MetricsFile(Logger):
    """Logs figures into ``metrics.csv``, whose columns are their names in alphabetical order.

    Lightning's logger of this kind begins the file anew when a run goes on. Of several processes the first writes.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._file = Path(folder) / FILE
        self._columns: list[str] = []
        self._waiting: list[dict[str, Any]] = []
        self._written = 0

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "csv"

    @property
    def version(self) -> str:
        """The one there is."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """They are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take figures."""
        self._waiting.append({**{name: float(value) for name, value in metrics.items()}, "step": step})
        if "epoch" in metrics:
            self._waiting[-1]["epoch"] = int(metrics["epoch"])
        if len(self._waiting) >= LINES_AT_A_TIME:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write what was taken, flushed to the disk."""
        if not self._waiting:
            return
        columns = sorted({*self._columns, *(name for row in self._waiting for name in row)})
        if columns == self._columns:
            with named_in_errors(self._file), self._file.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, columns).writerows(self._waiting)
                file.flush()
                os.fsync(file.fileno())
        else:
            self._write([*self._rows(self._written), *self._waiting], columns)
        self._written += len(self._waiting)
        self._waiting.clear()

    def finalize(self, status: str) -> None:
        """Write what was taken."""
        self.save()

    def state(self) -> int:
        """How many lines there are; they are on the disk when this is over."""
        self.save()
        return self._written

    @rank_zero_only
    def restore(self, lines: int) -> None:
        """Go on behind so many lines of the file: what came after them will come again."""
        rows = self._rows(lines)
        self._written = len(rows)
        if not rows:
            self._file.unlink(missing_ok=True)
            return
        columns = sorted({name for row in rows for name, value in row.items() if value})
        self._write([{name: row[name] for name in columns} for row in rows], columns)

    def _rows(self, count: int) -> list[dict[str, Any]]:
        """The first lines of the file; what it has of a run that was here before is not among them."""
        if not count or not self._file.is_file():
            return []
        with self._file.open(encoding="utf-8", newline="") as file:
            return list(islice(csv.DictReader(file), count))

    def _write(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        with written_whole(self._file) as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns
