"""A folder belongs to one process for as long as that works in it, on a network file system too."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memlab.files import in_utf8, named_in_errors

FILE = ".in_use"
"""Is in a folder while a process works in it; one that was killed leaves the file there, which then means nothing."""

LOCKED = (errno.EACCES, errno.EAGAIN)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
TAKEN_AWAY = (errno.ENOENT, errno.ESTALE)
"""The folder, by a command that had found it empty, or the file, by who has just come to its end."""
MOMENTS, MOMENT = 50, 0.01
"""How often, and after how many seconds each time, it is looked for who works in a folder."""

_mine: set[Path] = set()


class FolderInUseError(ValueError):
    """Another process works in the folder."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within this context the folder, which is made if there is none, belongs to this process.

    What counts is a record lock of POSIX on a file in the folder, not that the file is there: the system takes the lock
    away when the process ends, however it does. NFS keeps these locks among all its machines; others, of flock, it has
    only in their guise. And they are not handed down to workers, which outlive a process that is killed by seconds, as
    those of flock, and so of filelock, are. On a file system without locks it counts who has made the file.

    Args:
        folder: of a run or a sweep.

    Raises:
        FolderInUseError: if another process works in it.
        OSError: if the folder cannot be made or written.
    """
    if folder.absolute() in _mine:  # closing the file a second time would give up the lock
        yield
        return
    handle = _locked(folder)
    _mine.add(folder.absolute())
    try:
        yield
    finally:
        _mine.discard(folder.absolute())
        with suppress(OSError):  # the folder may have been taken away
            (folder / FILE).unlink(missing_ok=True)  # as long as it is locked: afterwards it may be another's
        os.close(handle)


def _locked(folder: Path) -> int:
    while True:
        handle = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, is_new = _opened(folder / FILE)
            _lock(handle, folder, is_new=is_new)
            if os.path.samestat(os.fstat(handle), (folder / FILE).stat()):
                os.ftruncate(handle, 0)
                with named_in_errors(folder / FILE):
                    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return handle
            os.close(handle)
        except BaseException as error:
            if handle is not None:
                os.close(handle)
            if not isinstance(error, OSError) or error.errno not in TAKEN_AWAY:
                raise


def _opened(file: Path) -> tuple[int, bool]:
    """The file, and whether it was not there."""
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(file, os.O_RDWR), False


def _lock(handle: int, folder: Path, *, is_new: bool) -> None:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if is_new and error.errno in WITHOUT_LOCKS:
            return
        who = _holder(handle)
        if error.errno in WITHOUT_LOCKS:
            raise FolderInUseError(
                f"{in_utf8(folder)}: is being worked in by {who}, or was when that was killed, which this file system"
                f" does not tell; take away {in_utf8(folder / FILE)} if it was"
            ) from error
        if error.errno in LOCKED:
            raise FolderInUseError(
                f"{in_utf8(folder)}: is being worked in by {who}; wait for its end, or take another folder"
            ) from error
        raise


def _holder(handle: int) -> str:
    """Who has locked the file, in words; who has done so just now is about to write it."""
    for _ in range(MOMENTS):
        if who := os.pread(handle, 1000, 0).decode(errors="replace"):
            return who
        time.sleep(MOMENT)
    return "another process"
