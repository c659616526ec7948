"""The objects of a memory on the disk: a file for each stretch of ids, whose content follows from its objects alone.

Segment j has the objects with ids from ``SIZE j`` to ``SIZE (j + 1) - 1`` in their order. How a memory came to hold its
objects leaves no trace in the files, and taking some out writes few of them anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memlab.data.sequences import joined, without_padding_of_all
from memlab.trained.model import bytes_of
from memlab.trained.refusal import RefusedMemoryError

SIZE = 1024
"""Ids of a segment: at 64 float32 numbers a key, a quarter of a MiB is written for a change."""


class Entry(NamedTuple):
    """What the manifest says of a segment."""

    objects: int
    digest: str
    """See `Segment.digest`."""
    raw: str
    """See `Segment.raw_digest`."""

    def file(self, number: int) -> str:
        """Its name, which tells of the content: a file is never changed, but another takes its place."""
        return f"{number:06}-{self.digest[:16]}.safetensors"


@dataclass(frozen=True)
class Segment:
    """Some objects, by ascending id.

    Args:
        ids: (n,) which objects.
        keys: (n, D) in host memory.
        labels: (n,) names of their classes.
        sources: (n,) where they are from.
        raw: (n, ...) what is kept of their raw inputs, or None for nothing.
    """

    ids: Tensor
    keys: Tensor
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    raw: Tensor | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def entry(self) -> Entry:
        """For the manifest."""
        return Entry(len(self), self.digest, self.raw_digest)

    @property
    def digest(self) -> str:
        """SHA-256 of ids, labels, sources and keys."""
        words = json.dumps([self.ids.tolist(), self.labels, self.sources, str(self.keys.dtype), self.keys.shape[1]])
        return hashlib.sha256(words.encode() + bytes_of(self.keys)).hexdigest()

    @property
    def raw_digest(self) -> str:
        """SHA-256 of what is kept of the raw inputs; empty if nothing is."""
        if self.raw is None:
            return ""
        return hashlib.sha256(f"{self.raw.dtype} {tuple(self.raw.shape)}".encode() + bytes_of(self.raw)).hexdigest()

    def of(self, chosen: Tensor) -> Segment:
        """The objects at some places, (m,) ascending."""
        places = chosen.tolist()
        return Segment(
            self.ids[chosen],
            self.keys[chosen],
            tuple(self.labels[place] for place in places),
            tuple(self.sources[place] for place in places),
            None if self.raw is None else without_padding_of_all(self.raw[chosen]),
        )

    def followed_by(self, other: Segment) -> Segment:
        """With the objects of another, whose ids are larger."""
        raw = None if self.raw is None or other.raw is None else joined([self.raw, other.raw])
        return Segment(
            torch.cat([self.ids, other.ids]),
            torch.cat([self.keys, other.keys]),
            self.labels + other.labels,
            self.sources + other.sources,
            raw,
        )

    def to_bytes(self, fingerprint: str) -> bytes:
        """The file, with the fingerprint of the encoder that made the keys."""
        tensors = {"ids": self.ids, "keys": self.keys} | ({} if self.raw is None else {"raw": self.raw})
        words = json.dumps({"fingerprint": fingerprint, "labels": self.labels, "sources": self.sources})
        return save({name: each.contiguous() for name, each in tensors.items()}, metadata={"memlab": words})


def split(segment: Segment) -> dict[int, Segment]:
    """Objects of any ids, by the segment that each belongs to."""
    return {number: segment.of(places) for number, places in places_by_segment(segment.ids)}


def places_by_segment(ids: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The segments that some ids belong to, and the places that the ids of each have.

    Args:
        ids: (n,) ascending.

    >>> [(number, places.tolist()) for number, places in places_by_segment(torch.tensor([3, 7, 5000]))]
    [(0, [0, 1]), (4, [2])]
    """
    numbers, counts = (ids // SIZE).unique_consecutive(return_counts=True)
    yield from zip(numbers.tolist(), torch.arange(len(ids)).split(counts.tolist()), strict=True)


def read_segment(file: Path, number: int, entry: Entry, *, fingerprint: str, raw: bool = False) -> Segment:
    """Read a segment and see that it is what the manifest says.

    Args:
        file: where it is.
        number: j.
        entry: what the manifest says.
        fingerprint: of the encoder that must have made the keys.
        raw: with what is kept of the raw inputs, which takes longer.

    Raises:
        FileNotFoundError: if it is not there.
        RefusedMemoryError: if it is something else.
    """
    if not file.exists():
        raise FileNotFoundError(file)
    try:
        with safe_open(file, framework="pt") as opened:
            words: dict[str, Any] = json.loads((opened.metadata() or {})["memlab"])
            tensors = {
                name: opened.get_tensor(name).clone()
                for name in opened.keys()  # noqa: SIM118 - not a mapping
                if name in ("ids", "keys") or (raw and name == "raw")
            }
        if words["fingerprint"] != fingerprint:
            raise RefusedMemoryError(f"{file.name}: its keys were made by another encoder than this memory's")
        segment = Segment(
            tensors["ids"], tensors["keys"], tuple(words["labels"]), tuple(words["sources"]), tensors.get("raw")
        )
        good = (
            segment.digest == entry.digest
            and len(segment) == len(segment.labels) == len(segment.sources) == len(segment.keys) == entry.objects > 0
            and all(isinstance(word, str) for word in segment.labels + segment.sources)
            and all(segment.labels)
            and segment.keys.dim() == 2
            and segment.keys.is_floating_point()
            and segment.keys.isfinite().all()
            and segment.ids.dim() == 1
            and segment.ids.dtype is torch.int64
            and (segment.ids[1:] > segment.ids[:-1]).all()
            and (segment.ids // SIZE == number).all()
            and (not raw or segment.raw_digest == entry.raw)
            and (segment.raw is None or len(segment.raw) == len(segment))
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        if isinstance(error, RefusedMemoryError):
            raise
        raise RefusedMemoryError(f"{file.name}: truncated or damaged ({type(error).__name__})") from error
    if not good:
        raise RefusedMemoryError(f"{file.name}: is not what was written; restore it, or train anew")
    return segment
