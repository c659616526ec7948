"""The folder of a memory: a manifest that is replaced in one move, and files that it names by their content.

``memory.json``, the manifest; ``weights-*.safetensors``, encoder, statistics, similarity and hops;
``<number>-*.safetensors``, objects (`memlab.trained.segments`); ``calibration-*.safetensors``; ``journal.jsonl``, who
changed what and when, a line for each change; ``lock``. No name of a file is read from a file.

A change writes its new files, then a line of the journal, then the manifest, each flushed to the disk, and then takes
away what the manifest names no more: killed at any moment, the change is there as a whole or not at all. The journal
counts as far as the manifest says. What a killed process left behind goes away when the folder is next opened.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from memlab.files import in_utf8, sync_folder, write_bytes_whole
from memlab.trained.content import digest_of
from memlab.trained.objects import KEPT
from memlab.trained.refusal import RefusedMemoryError, UnchangeableMemoryError
from memlab.trained.segments import Entry, Segment, read_segment

T = TypeVar("T")
FORMAT = 1
"""Goes up by one when what a folder holds becomes another."""
MANIFEST, JOURNAL, LOCK = "memory.json", "journal.jsonl", "lock"
OURS = re.compile(r"((\d{6,}|weights|calibration)-[0-9a-f]{16}\.safetensors|memory\.json)(\.unfinished)?")
"""What a folder may hold besides journal and lock; nothing else is ever taken away."""
LARGEST_MANIFEST = 2**26
PATIENCE = 60.0
"""Seconds to wait for another process that changes the same memory."""


@dataclass(frozen=True)
class Calibration:
    """What the manifest says of the calibration objects."""

    objects: int
    digest: str
    """SHA-256 of their file's content."""
    temperature: float
    """Scores by class are divided by it; 1 until it is fit."""

    @property
    def file(self) -> str:
        """Its name."""
        return f"calibration-{self.digest[:16]}.safetensors"


@dataclass(frozen=True)
class Manifest:
    """What ``memory.json`` holds."""

    model: Mapping[str, Any]
    """See `memlab.trained.model.Model.described`."""
    fingerprint: str
    classes: tuple[str, ...]
    """Of the training data, in its order."""
    keep: str
    """What is kept of raw inputs; see `memlab.trained.objects.ObjectKind.kept`."""
    reads_objects: bool
    """False if there is one key for each class, learned or a mean, in the place of objects."""
    about: Mapping[str, Any]
    """Where it comes from, to be told."""
    calibration: Calibration | None
    segments: Mapping[int, Entry]
    next_id: int
    change: int = 0
    """Number of the last change."""
    journal_bytes: int = 0
    """How much of the journal counts."""
    journal_digest: str = ""
    """Of its lines: SHA-256 of that of the lines before and of the last one."""

    @cached_property
    def digest(self) -> str:
        """See `memlab.trained.content.digest_of`."""
        return digest_of(self.fingerprint, self.segments)

    @property
    def weights(self) -> str:
        """Name of the file of weights."""
        return f"weights-{self.fingerprint[:16]}.safetensors"

    @property
    def files(self) -> set[str]:
        """Names of all files that belong to it, besides itself."""
        calibration = set() if self.calibration is None else {self.calibration.file}
        return {self.weights, *(entry.file(number) for number, entry in self.segments.items()), *calibration}

    @cached_property
    def data(self) -> bytes:
        """The file."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["calibration"] = None if self.calibration is None else asdict(self.calibration)
        return (json.dumps({"format": FORMAT, **found}) + "\n").encode()


class MemoryFolder:
    """A memory on the disk.

    Args:
        path: the folder.

    Raises:
        RefusedMemoryError: if something in it is a link or a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            strange = [entry.name for entry in os.scandir(path) if not entry.is_file(follow_symlinks=False)]
        except OSError as error:
            raise RefusedMemoryError(f"{in_utf8(path)}: cannot be read ({error.strerror})") from error
        if strange:
            raise RefusedMemoryError(f"{in_utf8(path / min(strange))}: is a link or a folder; must be a plain file")

    def manifest(self) -> Manifest:
        """The manifest as it is on the disk now.

        Raises:
            RefusedMemoryError: if there is none, or one that is not understood.
        """
        file, data = self.path / MANIFEST, self.manifest_bytes()
        try:
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError("it is no description of a memory")
            if found.pop("format", None) != FORMAT:
                raise RefusedMemoryError(
                    f"{in_utf8(file)}: written by another version of memlab; must be of format {FORMAT}, load it with"
                    " the version that wrote it, or train anew"
                )
            return _parsed(found)
        except RefusedMemoryError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RefusedMemoryError(f"{in_utf8(file)}: damaged or missing ({' '.join(str(error).split())})") from error

    def manifest_bytes(self) -> bytes:
        """The manifest's file as it is on the disk now.

        Raises:
            RefusedMemoryError: if there is none, or one that is too large.
        """
        file = self.path / MANIFEST
        try:
            with file.open("rb") as opened:
                data = opened.read(LARGEST_MANIFEST + 1)
        except OSError as error:
            raise RefusedMemoryError(f"{in_utf8(file)}: damaged or missing ({error.strerror})") from error
        if len(data) > LARGEST_MANIFEST:
            raise RefusedMemoryError(f"{in_utf8(file)}: damaged or missing (it is too large)")
        return data

    def latest(self, read: Callable[[Manifest], T]) -> T:
        """What is read of the files that the manifest names, whatever another process changes meanwhile.

        Args:
            read: is given the manifest, and a newer one if files of it have gone; raises FileNotFoundError for these.

        Raises:
            RefusedMemoryError: for what is missing or damaged.
        """
        manifest = self.manifest()
        while True:
            try:
                return read(manifest)
            except FileNotFoundError as error:  # gone: changed by another process meanwhile, or lost
                before, manifest = manifest, self.manifest()
                if before.change == manifest.change:
                    raise RefusedMemoryError(f"{error.args[0]}: is missing; restore it, or train anew") from error

    def size(self) -> int:
        """Bytes of all its files."""
        total = 0
        for entry in os.scandir(self.path):
            with suppress(FileNotFoundError):  # gone, as a change has made another of it
                total += entry.stat().st_size
        return total

    def segment(self, manifest: Manifest, number: int, *, raw: bool = False) -> Segment:
        """A segment; see `memlab.trained.segments.read_segment`."""
        entry = manifest.segments[number]
        found = read_segment(self.path / entry.file(number), number, entry, fingerprint=manifest.fingerprint, raw=raw)
        if int(found.ids[-1]) >= manifest.next_id:
            raise RefusedMemoryError(
                f"{MANIFEST}: next_id={manifest.next_id}, which an object has already; restore it, or train anew"
            )
        return found

    def write(self, name: str, data: bytes) -> None:
        """Write a file that a manifest is to name; within `changing` alone.

        Raises:
            ValueError: if it cannot be written.
        """
        with self._as_it_was_unless_written():
            write_bytes_whole(self.path / name, data)

    def copied(self, manifest: Manifest, target: Path, *, but: Collection[int] = ()) -> MemoryFolder:
        """A new folder with the files of a memory and its journal but some segments, and without a manifest yet."""
        target.mkdir(parents=True, exist_ok=True)
        left_out = {entry.file(number) for number, entry in manifest.segments.items() if number in but}
        for name in (*sorted(manifest.files - left_out), JOURNAL):
            if (self.path / name).exists():
                shutil.copyfile(self.path / name, target / name)
        return MemoryFolder(target)

    @contextmanager
    def changing(self) -> Iterator[Manifest]:
        """The manifest, while no other process changes the memory.

        Raises:
            UnchangeableMemoryError: if one does, and goes on for a minute, or the folder cannot be written.
        """
        lock = FileLock(self.path / LOCK, timeout=PATIENCE)
        try:
            lock.acquire()
        except Timeout as error:
            raise UnchangeableMemoryError(
                f"{in_utf8(self.path)}: another process is changing it; try again when it is done"
            ) from error
        except OSError as error:
            raise UnchangeableMemoryError(f"{in_utf8(self.path)}: cannot be changed ({error.strerror})") from error
        try:
            yield self.manifest()
        finally:
            lock.release()

    def commit(self, manifest: Manifest, changed: Mapping[int, Segment | None], note: Mapping[str, Any]) -> Manifest:
        """Make a change, which is on the disk when this is over; within `changing` alone.

        Args:
            manifest: as it was, with what else is to be another in it already.
            changed: segments that are to be others, by number; None to take one out.
            note: what the journal is to say.

        Returns:
            the manifest as it is.

        Raises:
            ValueError: if it cannot be written, as on a full disk: then the memory is as it was.
        """
        with self._as_it_was_unless_written():
            manifest = self._written(manifest, changed, note)
        try:
            self._sweep(manifest)
            sync_folder(self.path)
        except OSError as error:
            raise ValueError(
                f"{in_utf8(self.path)}: is changed, but what it held before cannot be taken off the disk"
                f" ({error.strerror}); that is tried again when it is next opened or changed"
            ) from error
        return manifest

    def sweep(self, manifest: Manifest) -> None:
        """Take away what a killed process left behind, if nobody changes the memory and the folder can be written."""
        if self._leftovers(manifest):
            with suppress(OSError, Timeout), FileLock(self.path / LOCK, timeout=0):
                self._sweep(self.manifest())
                sync_folder(self.path)

    @contextmanager
    def _as_it_was_unless_written(self) -> Iterator[None]:
        """Within this context what cannot be written is told in a line, and what was written for it is taken away."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError, RefusedMemoryError):
                self._sweep(self.manifest())  # as it is on the disk: the last thing written may have been written
            if not isinstance(error, OSError):
                raise
            raise ValueError(f"{in_utf8(self.path)}: cannot be changed ({error.strerror}); it is as it was") from error

    def _written(self, manifest: Manifest, changed: Mapping[int, Segment | None], note: Mapping[str, Any]) -> Manifest:
        segments = {number: entry for number, entry in manifest.segments.items() if number not in changed}
        written = {number: segment for number, segment in changed.items() if segment is not None}
        entries = {number: segment.entry for number, segment in written.items()}
        for number, segment in written.items():
            self.write(entries[number].file(number), segment.to_bytes(manifest.fingerprint))
        manifest = replace(manifest, segments=dict(sorted((segments | entries).items())), change=manifest.change + 1)
        line = {"change": manifest.change, "when": _now(), "who": _who(), **note, "digest": manifest.digest}
        data = (json.dumps(line) + "\n").encode()
        self._note(data, after=manifest.journal_bytes)
        manifest = replace(
            manifest,
            journal_bytes=manifest.journal_bytes + len(data),
            journal_digest=_chained(manifest.journal_digest, data),
        )
        write_bytes_whole(self.path / MANIFEST, manifest.data)
        return manifest

    def journal(self, manifest: Manifest) -> list[dict[str, Any]]:
        """The changes made, first to last.

        Raises:
            RefusedMemoryError: if the file is damaged.
        """
        file = self.path / JOURNAL
        if not manifest.journal_bytes:
            return []
        try:
            with file.open("rb") as opened:
                data = opened.read(manifest.journal_bytes)
            digest = ""
            for line in data.splitlines(keepends=True):
                digest = _chained(digest, line)
            if digest != manifest.journal_digest:
                raise ValueError("it is not what was written")
            lines: list[dict[str, Any]] = [json.loads(line) for line in data.splitlines()]
            if not all(isinstance(line, dict) and isinstance(line.get("what"), str) for line in lines):
                raise ValueError("a line is no change")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RefusedMemoryError(f"{in_utf8(file)}: truncated, damaged or missing ({error})") from error
        return lines

    def _note(self, line: bytes, *, after: int) -> None:
        """Put a line behind those that count, in the place of what does not."""
        journal = self.path / JOURNAL
        if after and (not journal.exists() or journal.stat().st_size < after):
            raise RefusedMemoryError(f"{in_utf8(journal)}: truncated or missing; restore it")
        with journal.open("r+b" if after else "wb") as file:
            file.truncate(after)
            file.seek(after)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _sweep(self, manifest: Manifest) -> None:
        for name in self._leftovers(manifest):
            (self.path / name).unlink(missing_ok=True)

    def _leftovers(self, manifest: Manifest) -> list[str]:
        belongs = {*manifest.files, MANIFEST}
        return [
            entry.name for entry in os.scandir(self.path) if OURS.fullmatch(entry.name) and entry.name not in belongs
        ]


def _parsed(found: Mapping[str, Any]) -> Manifest:
    calibration = found["calibration"]
    manifest = Manifest(
        **{
            **found,
            "classes": tuple(found["classes"]),
            "calibration": None if calibration is None else Calibration(**calibration),
            "segments": {int(number): Entry(*entry) for number, entry in found["segments"].items()},
        }
    )
    digests = [manifest.fingerprint, *(entry.digest for entry in manifest.segments.values())]
    if manifest.calibration is not None:
        digests.append(manifest.calibration.digest)
        if not 0 < manifest.calibration.temperature < float("inf"):
            raise ValueError("its temperature is no positive number")
    numbers = [manifest.next_id, manifest.change, manifest.journal_bytes, *manifest.segments]
    if not (
        all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
        and all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(name, str) for name in manifest.classes)
        and all(type(entry.objects) is int and isinstance(entry.raw, str) for entry in manifest.segments.values())
        and isinstance(manifest.model, dict)
        and isinstance(manifest.about, dict)
        and isinstance(manifest.reads_objects, bool)
        and isinstance(manifest.journal_digest, str)
        and manifest.keep in KEPT
        and manifest.segments
    ):
        raise ValueError("a value in it is not what it must be")
    return manifest


def _chained(before: str, line: bytes) -> str:
    return hashlib.sha256(before.encode() + line).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
