"""Images decoded once: their pixels in a file that is mapped into memory, beside a manifest of where they are from."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from memlab.files import in_utf8, named_when_whole, written_whole

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]

FORMAT = 1
"""Of manifest and pixels; another one is built anew."""
FILES_AT_A_TIME = 64
"""Files that a thread reads between two words to the progress bar."""


@dataclass(frozen=True)
class ImageFile:
    """One image as the file system knows it."""

    path: str
    """Relative to the folder of all images, with slashes."""
    class_name: str
    part: str
    """``train``, ``test``, or empty if the folder is not split."""
    size: int
    modified_ns: int


class Entry(NamedTuple):
    """What the manifest says of a file, at the row that its pixels have."""

    path: str
    size: int
    modified_ns: int
    checksum: str
    """SHA-256 of the file's bytes; empty if they could not be read."""
    class_name: str
    problem: str | None
    """Why it could not be read as an image."""


class CachedImages(NamedTuple):
    """Images in the order of the files asked for."""

    pixels: Tensor
    """(N, channels, height, width) uint8, mapped from a file; zeros where there is a problem."""
    problems: dict[str, str]
    """Path to why it could not be read."""


class Cache:
    """The decoded images of one folder at one size.

    A cache is two files: pixels, and a manifest that names them. The manifest is replaced in one move when the pixels
    are complete, so that a process that was killed while it built leaves the cache as it was; what it had written is
    removed by the next that builds. Processes that start at the same time wait for the first of them.

    A file counts as unchanged if its size and time of change are; if only the time differs, its checksum decides. Only
    what is new or changed is decoded.

    Args:
        images: folder of the images.
        folder: where the cache is kept; it is made when something is to be written.
        image_size: side of the square images, in pixels.
        channels: 3 for colour, 1 for grey.
    """

    def __init__(self, images: Path, folder: Path, *, image_size: int, channels: int) -> None:
        self._images = images
        self._folder = folder
        self._shape = (channels, image_size, image_size)
        self._kind = f"{image_size}x{image_size}x{channels}"
        self._manifest = folder / f"{self._kind}.json"

    def open(self, files: Sequence[ImageFile]) -> CachedImages:
        """The images of these files, decoded now if they have not been before.

        Raises:
            OSError: if the cache cannot be written.
        """
        cached = self._read(files)
        if cached is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{self._kind}.lock"):
                cached = self._read(files)  # another process may have built it in the meantime
                if cached is None:
                    self._build(files)
                    cached = self._read(files, try_again=False)
        assert cached is not None
        return cached

    def _read(self, files: Sequence[ImageFile], *, try_again: bool = True) -> CachedImages | None:
        """The cached images, or None if there is something to decode.

        Args:
            files: those asked for.
            try_again: take files that could not be opened then, and can be now, for something to decode.
        """
        entries, pixels = self._load()
        if [(entry.path, entry.size, entry.modified_ns) for entry in entries] != [
            (file.path, file.size, file.modified_ns) for file in files
        ]:
            return None
        if try_again and any(not e.checksum and os.access(self._images / e.path, os.R_OK) for e in entries):
            return None
        problems = {entry.path: entry.problem for entry in entries if entry.problem is not None}
        return CachedImages(torch.from_numpy(pixels), problems)

    def _load(self) -> tuple[list[Entry], Pixels]:
        """Manifest and pixels as they are on the disk; nothing if they are not there or do not belong together."""
        nothing: tuple[list[Entry], Pixels] = [], np.empty((0, *self._shape), np.uint8)
        try:
            manifest = json.loads(self._manifest.read_text())
            if manifest["format"] != FORMAT:
                return nothing
            entries = [Entry(*entry) for entry in manifest["files"]]
            shape = (len(entries), *self._shape)
            file = self._folder / manifest["pixels"]
            if file.stat().st_size != np.prod(shape, dtype=np.int64):
                return nothing
            # Copy on write: torch wants an array that can be written, and the file must stay as it is.
            return entries, np.memmap(file, np.uint8, mode="c", shape=shape)
        except (OSError, ValueError, KeyError, TypeError):
            return nothing

    def _build(self, files: Sequence[ImageFile]) -> None:
        old, old_pixels = self._load()
        for leftover in self._folder.glob(f"{self._kind}-*.u8*"):
            if old and leftover.name == Path(str(old_pixels.filename)).name:  # type: ignore[attr-defined]
                continue
            leftover.unlink()
        name = f"{self._kind}-{secrets.token_hex(4)}.u8"
        with named_when_whole(self._folder / name) as unfinished:
            entries = self._write(files, unfinished, old, old_pixels)
        manifest = {"format": FORMAT, "pixels": name, "files": entries}
        with written_whole(self._manifest) as out:
            json.dump(manifest, out)
        if old:
            Path(str(old_pixels.filename)).unlink()  # type: ignore[attr-defined]

    def _write(self, files: Sequence[ImageFile], target: Path, old: Sequence[Entry], old_pixels: Pixels) -> list[Entry]:
        pixels = _allocated(target, (len(files), *self._shape))
        known = {entry.path: row for row, entry in enumerate(old) if entry.problem is None}
        entries: dict[int, Entry] = {}
        to_read = []
        for row, file in enumerate(files):
            before = old[known[file.path]] if file.path in known else None
            if before and (before.size, before.modified_ns) == (file.size, file.modified_ns):
                pixels[row] = old_pixels[known[file.path]]
                entries[row] = before
            else:
                to_read.append(row)

        def read(rows: Sequence[int]) -> list[tuple[int, Entry]]:
            found = []
            for row in rows:
                file = files[row]
                checksum, problem = "", None
                try:
                    data = (self._images / file.path).read_bytes()
                    checksum = hashlib.sha256(data).hexdigest()
                    if file.path in known and old[known[file.path]].checksum == checksum:
                        pixels[row] = old_pixels[known[file.path]]
                    else:
                        pixels[row] = decoded(data, self._shape)
                except Exception as error:  # Pillow's readers raise almost anything on a damaged file
                    problem = " ".join(str(error).split()) or type(error).__name__
                found.append((row, Entry(file.path, file.size, file.modified_ns, checksum, file.class_name, problem)))
            return found

        if to_read:
            log.info(f"decoding {len(to_read):,} of {len(files):,} images into {in_utf8(self._folder)}")
        parts = [to_read[start : start + FILES_AT_A_TIME] for start in range(0, len(to_read), FILES_AT_A_TIME)]
        with _progress() as progress, _threads() as pool:
            task = progress.add_task("decoding images", total=len(to_read))
            for done in as_completed([pool.submit(read, part) for part in parts]):
                entries.update(done.result())
                progress.advance(task, len(done.result()))
        pixels.flush()
        return [entries[row] for row in range(len(files))]


def decoded(data: bytes, shape: tuple[int, int, int], *, formats: tuple[str, ...] | None = None) -> Pixels:
    """An image file's bytes as pixels: upright, cut to a square about the middle, resized with antialiasing.

    Args:
        data: of a file of any format that Pillow reads, 8 or 16 bits a channel.
        shape: (channels, height, width), 3 channels for colour or 1 for grey.
        formats: names that Pillow has for the formats it may be of; None for all.

    Raises:
        Exception: of many kinds, if it cannot be read.
    """
    channels, height, width = shape
    with Image.open(io.BytesIO(data), formats=formats) as image:
        # has libjpeg decode large photographs at a fraction of their size
        image.draft(_mode(channels), (2 * width, 2 * height))
        return fitted(image, shape)


def fitted(image: Image.Image, shape: tuple[int, int, int]) -> Pixels:
    """A picture that Pillow has opened as pixels; see `decoded`."""
    channels, height, width = shape
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would clip it
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise ValueError(f"has 32 bits a pixel (Pillow's mode {upright.mode}); must have 8 or 16 bits a channel")
    square = ImageOps.fit(upright.convert(_mode(channels)), (width, height), method=Image.Resampling.BICUBIC)
    return np.asarray(square).reshape(height, width, channels).transpose(2, 0, 1)


def _mode(channels: int) -> str:
    return "RGB" if channels == 3 else "L"


def _allocated(target: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """A new file of this many bytes, mapped; with its room on the disk, as a full disk would kill a later write."""
    size = int(np.prod(shape, dtype=np.int64))
    with target.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(target, np.uint8, mode="r+", shape=shape)


def _progress() -> Progress:
    screen = Console(stderr=True)
    return Progress(console=screen, transient=True, disable=not screen.is_terminal)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """One thread for each core: reading and decoding let go of Python's lock. Ctrl-C does not wait for all files."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
