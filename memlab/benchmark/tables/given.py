"""The tables of a folder, and the column of each that has the classes."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from memlab.data.columns import listed
from memlab.data.frames import SUFFIXES, is_table, read_frame
from memlab.files import in_utf8

LIST = "tables.csv"
"""A file in the folder that tells where the classes are, if not in the last column, and what other files there are."""
HEADER = ["file", "target"]


class GivenTable(NamedTuple):
    """A table to be learned from."""

    name: str
    file: Path
    target: str
    """The column of the classes."""

    def digest(self) -> str:
        """Tells whether the file is the same as before."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def find_tables(folder: Path, *, target: str | None, chosen: Sequence[str] | None) -> list[GivenTable]:
    """The tables in a folder and those that a line ``file,target`` of its ``tables.csv`` names, by name.

    Args:
        folder: has files that `memlab.data.frames.read_frame` reads.
        target: the column of the classes, of all tables without a line of their own; None for the last one of each.
        chosen: names of those asked for; None for all.

    Raises:
        ValueError: for a folder without tables, a line, a name or a column that does not fit, or a file that cannot be
            read.
    """
    if not folder.is_dir():
        raise ValueError(f"{in_utf8(folder)}: there is no such folder")
    lines = dict(_lines(folder / LIST))
    files = {path: None for path in sorted(folder.iterdir()) if path.name != LIST and is_table(path)} | lines
    if not files:
        raise ValueError(f"{in_utf8(folder)}: has no tables; must have files that end in {', '.join(SUFFIXES)}")
    named: dict[str, Path] = {}
    for path in files:
        name = in_utf8(path.name).split(".")[0]
        if name in named:
            raise ValueError(f"{in_utf8(path)}: has the name of {in_utf8(named[name])}; each table must have its own")
        named[name] = path
    if unknown := [name for name in chosen or [] if name not in named]:
        raise ValueError(f"--tables {unknown[0]}: must be one of {listed(sorted(named))}")
    return [
        GivenTable(name, named[name], _target(named[name], lines.get(named[name]), target))
        for name in sorted(named)
        if chosen is None or name in chosen
    ]


def _lines(file: Path) -> Iterator[tuple[Path, str]]:
    """File and target of each line of the list, if there is one."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8-sig", newline="") as text:
        header, *lines = list(csv.reader(text)) or [[]]
    if header != HEADER:
        raise ValueError(f"{in_utf8(file)}: begins with {','.join(header)}; must begin with {','.join(HEADER)}")
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(HEADER) or not all(cells):
            raise ValueError(f"{in_utf8(file)}: line {number} is {','.join(cells)}; must be a file and its target")
        yield file.parent / cells[0], cells[1]


def _target(file: Path, own: str | None, common: str | None) -> str:
    columns = read_frame(file).columns
    wanted = own or common or columns[-1]
    if wanted not in columns:
        where = f"{LIST}: target={wanted}" if own else f"--target {wanted}"
        raise ValueError(f"{where}: {in_utf8(file)} has no such column; must be one of {listed(columns)}")
    return wanted
