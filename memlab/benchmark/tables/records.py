"""What has been measured so far: a file that is whole at any time, and is gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memlab.benchmark.tables.cells import Cell
from memlab.files import in_utf8, write_whole

FILE = "results.json"


class Records:
    """Figures of table x method x seed, in a file of a folder.

    Args:
        folder: of the benchmark.
        settings: what all figures depend on.
        about: what else is to be told of them; that of the first start stays.

    Raises:
        ValueError: if the figures in the file are of other settings, or it is not one of these.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], about: dict[str, Any]) -> None:
        self._file = folder / FILE
        self._content: dict[str, Any] = {"settings": settings, "about": about, "results": []}
        if not self._file.is_file():
            return
        try:
            self._content = json.loads(self._file.read_text())
            before = self._content["settings"]
            self._content["results"].sort(key=_place)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{in_utf8(self._file)}: is no file of memlab bench-tables; take another folder"
            ) from error
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"--{name} {value}: {in_utf8(self._file)} has figures of {before.get(name)}; must be the same, or"
                    " another --output"
                )

    @property
    def about(self) -> dict[str, Any]:
        """What was told at the first start."""
        about: dict[str, Any] = self._content["about"]
        return about

    def of(self, cell: Cell) -> dict[str, Any] | None:
        """The figures of a cell, or its failure; None if it was not measured.

        Raises:
            ValueError: if its table was another then.
        """
        for record in self._content["results"]:
            if _place(record) == (cell.seed, cell.table.name, cell.method):
                if record["digest"] != cell.table.digest():
                    raise ValueError(
                        f"{in_utf8(cell.table.file)}: is not what it was when {in_utf8(self._file)} was written; take"
                        " another --output"
                    )
                found: dict[str, Any] = record
                return found
        return None

    def add(self, cell: Cell, found: dict[str, Any]) -> None:
        """Take in what was measured, in place of what failed before."""
        key = {"table": cell.table.name, "method": cell.method, "seed": cell.seed, "digest": cell.table.digest()}
        others = [each for each in self._content["results"] if _place(each) != _place(key)]
        self._content["results"] = sorted([*others, key | found], key=_place)
        write_whole(self._file, json.dumps(self._content, indent=2) + "\n")


def _place(record: dict[str, Any]) -> tuple[int, str, str]:
    return record["seed"], record["table"], record["method"]
