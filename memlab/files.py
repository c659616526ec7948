"""Files that are written whole or not at all, and names of files that can be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def in_utf8(name: str | Path) -> str:
    """A name of the file system as it can be written and drawn: bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def written_whole(target: Path) -> Iterator[TextIO]:
    """A text file to write, that takes its name in one move when it is complete and on the disk.

    If writing fails, what was there before is there still, and nothing else.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
