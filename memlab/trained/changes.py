"""What a change makes of the objects of a memory: which are meant, and what their segments are then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memlab.checks import check_whole_number
from memlab.files import in_utf8
from memlab.trained.content import Content
from memlab.trained.folder import Manifest, MemoryFolder
from memlab.trained.segments import SIZE, Segment

NOT_UNDONE = (
    "the encoder's weights were trained with the objects, if they are of the training data; to undo that, train anew"
    " without them",
    "the data set itself, checkpoints, pictures and copies of this memory may hold them still; they are outside of it",
    "the disk is told that the room of their files is free, and may overwrite it later",
)
"""What forgetting leaves as it is."""


@dataclass(frozen=True)
class Receipt:
    """What was forgotten."""

    ids: list[int]
    digest_before: str
    """SHA-256 of the memory with the objects: encoder, keys, labels, sources and what is kept of raw inputs."""
    digest_after: str
    """The same without them: that of a memory that never held them."""
    not_undone: tuple[str, ...] = NOT_UNDONE


def chosen(
    content: Content, ids: int | Sequence[int] | None, *, class_: str | None = None, source: str | None = None
) -> Tensor:
    """(n,) ids of the objects that are named one way or another, ascending; see `memlab.trained.TrainedMemory.forget`.

    Raises:
        ValueError: for objects that there are not.
    """
    if class_ is not None:
        if class_ not in content.classes:
            raise ValueError(f"class_={class_}: must be one of {', '.join(content.classes)}")
        return content.ids[content.labels == content.classes.index(class_)].cpu()
    if source is not None:
        names = {source, in_utf8(Path(source).absolute())}
        found = sorted(identity for identity, name in content.sources.items() if name in names)
        if not found:
            raise ValueError(f"source={source}: no object of the memory is from there")
        return torch.tensor(found)
    given: Any = ids.tolist() if isinstance(ids, np.ndarray | Tensor) else ids
    numbers = sorted(
        {check_whole_number("ids", n, minimum=0) for n in (given if isinstance(given, Sequence) else [given])}
    )
    if not numbers:
        raise ValueError("ids: none are given")
    if missing := [each for each in numbers if each not in content.sources]:
        raise ValueError(f"ids={missing[0]}: there is no such object in the memory")
    return torch.tensor(numbers)


def without(folder: MemoryFolder, manifest: Manifest, ids: Tensor) -> dict[int, Segment | None]:
    """The segments that are others without some objects, by number; None for one of which nothing is left.

    Raises:
        ValueError: if nothing would be left at all.
    """
    if len(ids) >= sum(entry.objects for entry in manifest.segments.values()):
        raise ValueError("nothing would be left of the memory; must keep one object, or the folder be deleted")
    changed: dict[int, Segment | None] = {}
    for number in (ids // SIZE).unique().tolist():
        segment = folder.segment(manifest, number, raw=True)
        stays = (~torch.isin(segment.ids, ids)).nonzero().flatten()
        changed[number] = segment.of(stays) if len(stays) else None
    return changed


def relabelled(folder: MemoryFolder, manifest: Manifest, labels: Mapping[int, str]) -> dict[int, Segment | None]:
    """The segments that are others with other class names of some objects, by id."""
    changed: dict[int, Segment | None] = {}
    for number in sorted({identity // SIZE for identity in labels}):
        segment = folder.segment(manifest, number, raw=True)
        names = zip(segment.ids.tolist(), segment.labels, strict=True)
        changed[number] = replace(segment, labels=tuple(labels.get(identity, name) for identity, name in names))
    return changed


def last_not_undone(journal: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The line of the last change of objects that is not taken back yet; None if there is none."""
    stack: list[Mapping[str, Any]] = []
    for line in journal:
        if line["what"] == "undo":
            del stack[-1:]
        elif line["what"] != "calibrate":
            stack.append(line)
    return dict(stack[-1]) if stack else None
