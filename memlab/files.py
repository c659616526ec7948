"""Files that are written whole or not at all or found damaged, names that can be written, folders to write to."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from zipfile import BadZipFile

DAMAGES = (
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    BadZipFile,
    pickle.PickleError,
)
"""What readers raise when a file is not whole or not what its name says; torch's go through it as through a program."""

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
"""What the address of something begins with that may be elsewhere, and is not fetched."""


def in_utf8(name: str | Path) -> str:
    """A name of the file system as it can be written and drawn: bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def named_when_whole(target: Path) -> Iterator[Path]:
    """The path of a file to write, that takes the name of the target in one move when the context ends well.

    If writing fails, what was there before is there still, and nothing else; if the process is killed, a file beside it
    whose name ends in ``.unfinished``.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        with named_in_errors(target):
            yield unfinished
            unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def named_in_errors(target: Path) -> Iterator[None]:
    """Within this context an error of the system that names no file, as of one that is open already, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, in_utf8(target)) from error


@contextmanager
def written_whole(target: Path) -> Iterator[TextIO]:
    """A text file to write, that is there when it is complete and on the disk; see `named_when_whole`."""
    with named_when_whole(target) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_whole(target: Path, text: str) -> None:
    """Write a text file in one move; see `named_when_whole`."""
    with written_whole(target) as file:
        file.write(text)


def write_bytes_whole(target: Path, data: bytes) -> None:
    """Write a file in one move, that is on the disk then; see `named_when_whole`.

    A file that was left unfinished is taken away first, and a link in its place not followed.
    """
    with named_when_whole(target) as unfinished:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as they are now: a rename is not, before that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_new_or_empty(name: str, folder: Path, *, but: Container[str] = ()) -> Path:
    """Return a folder that does not exist yet or is empty.

    Args:
        name: the parameter.
        folder: what was given.
        but: names that may be in it.

    Raises:
        ValueError: if there is something.
    """
    if folder.exists() and (not folder.is_dir() or any(path.name not in but for path in folder.iterdir())):
        raise ValueError(f"{name}={folder}: must be a new or an empty folder, so that nothing in it is lost")
    return folder
