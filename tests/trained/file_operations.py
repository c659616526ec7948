"""Something happens at the n-th operation of this process that changes a file: it is killed, or the disk is full.

Operations are: to open a file for writing, to write to it, flush, cut off or sync it, to rename or take one away, to
sync a folder. A write counts twice: half of it is on the disk at the second count.
"""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


class Operations:
    """Counts operations, and has something happen at one.

    Args:
        at: which, from 1 on.
        happens: what; given the name of the operation.
    """

    def __init__(self, at: int, happens: Callable[[str], None]) -> None:
        self.at = at
        self.happens = happens
        self.names: list[str] = []

    def come_to(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) >= self.at:
            self.happens(name)


class Watched:
    """A file opened for writing, whose operations count."""

    def __init__(self, file: Any, operations: Operations) -> None:
        self._file, self._operations = file, operations

    def write(self, data: bytes) -> int:
        self._operations.come_to("write")
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._operations.come_to("write the rest")
        self._file.write(data[len(data) // 2 :])
        return len(data)

    def flush(self) -> None:
        self._operations.come_to("flush")
        self._file.flush()

    def truncate(self, size: int) -> int:
        self._operations.come_to("truncate")
        return int(self._file.truncate(size))

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def disturbed(at: int, happens: Callable[[str], None]) -> Iterator[Operations]:
    """Within this context something happens at an operation and at all that follow it, if it does not end them."""
    operations = Operations(at, happens)
    plain_open, plain_os_open = io.open, os.open

    def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return plain_open(file, mode, *more, **named)
        operations.come_to("open")
        return Watched(plain_open(file, mode, *more, **named), operations)

    def os_opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            operations.come_to("open")
        return plain_os_open(path, flags, *more, **named)

    def watched(name: str) -> Any:
        plain = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            operations.come_to(name)
            return plain(*given, **named)

        return mock.patch.object(os, name, call)

    with (
        mock.patch.object(io, "open", opened),
        mock.patch.object(os, "open", os_opened),
        watched("fsync"),
        watched("replace"),
        watched("unlink"),
    ):
        yield operations


def killed(_: str) -> None:
    """The process ends as in a crash."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_is_full(name: str) -> None:
    """Nothing can be written any more; files can be taken away."""
    if name != "unlink":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_read_only(_: str) -> None:
    """The file system cannot be written at all."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
