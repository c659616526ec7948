"""Checkpoints as files: written whole, with a checksum beside them, and read only if they are what was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from memlab.files import DAMAGES, in_utf8, named_in_errors, named_when_whole, sync_folder, write_whole

CHECKPOINT_FORMAT = 2
"""Goes up by one when what a checkpoint holds becomes another."""
CHECKSUM = ".sha256"
"""Ends the name of the file beside a checkpoint that has its checksum."""
BEFORE = "before_"
"""Begins the name of the checkpoint whose place another has taken."""
DAMAGED = "damaged_"
"""Begins the name of a checkpoint that was found to be damaged."""


class DamagedCheckpointError(ValueError):
    """A file is no checkpoint, or not as it was written."""


class CheckpointFiles(CheckpointIO):
    """How Lightning's trainer writes and reads checkpoints.

    A checkpoint is written under another name, flushed to the disk, and takes its name in one move. The one that had it
    is kept as ``before_...``, so that there is a good one at every moment.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, and its checksum beside it."""
        target = Path(path)
        before = target.with_name(BEFORE + target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with named_when_whole(target) as unfinished:
            with unfinished.open("wb") as file:
                torch.save(dict(checkpoint), hashed := _Hashed(file, target))  # type: ignore[arg-type]  # all it calls is there
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                # Killed before the move, the file of that name is the older one, which must still be known.
                _note(before, *_noted(target)[:1], *_noted(before)[:1])
                target.replace(before)
            _note(target, hashed.digest)
        sync_folder(target.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Take a checkpoint away."""
        for file in (Path(path), _beside(Path(path))):
            file.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: tensors in host memory, and plain values; nothing in it is executed.

    One that has no checksum beside it, as a copy may, is as good as it can be read.

    Raises:
        DamagedCheckpointError: if it is missing, not as it was written, or not of this version of memlab.
    """
    name = in_utf8(path)
    if not path.is_file():
        raise DamagedCheckpointError(f"{name}: no such file; must be a checkpoint that train.py wrote")
    try:
        if _beside(path).is_file() and digest_of(path) not in _noted(path):
            raise ValueError("its checksum is another")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGES as error:
        why = error if str(error) == "its checksum is another" else type(error).__name__
        raise DamagedCheckpointError(
            f"{name}: truncated, damaged or not a checkpoint ({why}); must be one that train.py wrote"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("memlab"), dict):
        raise DamagedCheckpointError(f"{name}: not a checkpoint of memlab; must be one that train.py wrote")
    if checkpoint["memlab"].get("format") != CHECKPOINT_FORMAT:
        raise DamagedCheckpointError(
            f"{name}: written by another version of memlab; must be of this one, go on with the version that wrote it"
            " or train anew"
        )
    return checkpoint


def put_aside(path: Path) -> Path:
    """Take the name from a checkpoint that is damaged, and its checksum away."""
    aside = path.with_name(f"{DAMAGED}{path.name}")
    path.replace(aside)
    _beside(path).unlink(missing_ok=True)
    return aside


def take_place(path: Path, target: Path) -> None:
    """Put a checkpoint into the place of another."""
    _note(target, digest_of(path), *_noted(target))
    path.replace(target)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Hashed:
    """A file that is written from its beginning to its end, with the SHA-256 of what is."""

    def __init__(self, file: BinaryIO, target: Path) -> None:
        self._file = file
        self._target = target
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        with named_in_errors(self._target):  # here, as torch makes another kind of error of it
            return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + CHECKSUM)


def _note(path: Path, *digests: str) -> None:
    write_whole(_beside(path), "".join(f"{digest}\n" for digest in digests))


def _noted(path: Path) -> list[str]:
    """Checksums of what the file of that name is, or was until it was replaced."""
    return _beside(path).read_text(errors="replace").split() if _beside(path).is_file() else []
