"""The objects of a memory at one moment, as they are read: sorted by class, and by id within a class."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memlab.trained.refusal import RefusedMemoryError
from memlab.trained.segments import SIZE, Entry, Segment


@dataclass(frozen=True)
class Content:
    """Objects, and how they are numbered: never changed, but replaced.

    All of it follows from which objects there are, whatever was added and taken out before. Classes are those that have
    objects: first those of the training data in its order, then others by name.

    Args:
        keys: (N, D) encoded objects.
        ids: (N,) which object each is.
        labels: (N,) class numbers, ascending; ids ascend within a class.
        classes: (C,) their names.
        sources: where each object is from, by id.
    """

    keys: Tensor
    ids: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    sources: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, segments: Sequence[Segment], *, first: Sequence[str], device: torch.device) -> Content:
        """The objects of some segments.

        Args:
            segments: one or more.
            first: names of classes that come before all others, in this order.
            device: where they are to be.

        Raises:
            RefusedMemoryError: for keys of several sizes.
        """
        if len({(each.keys.shape[1:], each.keys.dtype) for each in segments}) != 1:
            raise RefusedMemoryError("the keys are of several sizes or types, or there are none")
        names = [name for each in segments for name in each.labels]
        classes = in_order(set(names), first)
        number = {name: label for label, name in enumerate(classes)}
        labels = torch.tensor([number[name] for name in names])
        ids = torch.cat([each.ids for each in segments])
        order = _order(labels, ids)
        sources = {
            identity: source
            for each in segments
            for identity, source in zip(each.ids.tolist(), each.sources, strict=True)
        }
        keys = torch.cat([each.keys for each in segments])[order]
        return cls(keys.to(device), ids[order].to(device), labels[order].to(device), classes, sources)

    def replaced(self, changed: Mapping[int, Segment | None], *, first: Sequence[str]) -> Content:
        """With other objects in some segments, by number; None for none.

        Only objects that are new, gone or of another class are moved one by one: the rest of a segment stays.
        """
        device = self.ids.device
        mine = torch.isin(self.ids // SIZE, torch.tensor(list(changed), device=device)).nonzero().flatten()
        named = [self.classes[label] for label in self.labels[mine].tolist()]
        before = dict(zip(self.ids[mine].tolist(), zip(mine.tolist(), named, strict=True), strict=True))
        sources, stays = dict(self.sources), torch.ones(len(self), dtype=torch.bool, device=device)
        come: list[tuple[int, str, Tensor]] = []
        for segment in changed.values():
            for place, identity in enumerate(segment.ids.tolist() if segment else []):
                assert segment is not None
                row, name = before.pop(identity, (-1, ""))
                if name != segment.labels[place]:
                    come.append((identity, segment.labels[place], segment.keys[place]))
                    sources[identity] = segment.sources[place]
                    if row >= 0:
                        stays[row] = False
        for identity, (row, _) in before.items():
            stays[row] = False
            del sources[identity]
        rows = stays.nonzero().flatten()
        remaining = [self.classes[label] for label in self.labels[rows].unique_consecutive().tolist()]
        classes = in_order({*remaining, *(name for _, name, _ in come)}, first)
        number = {name: label for label, name in enumerate(classes)}
        renumbered = torch.tensor([number.get(name, -1) for name in self.classes], device=device)
        new_labels = torch.tensor([number[name] for _, name, _ in come], dtype=torch.int64, device=device)
        new_ids = torch.tensor([identity for identity, _, _ in come], dtype=torch.int64, device=device)
        old_labels, old_ids = renumbered[self.labels[rows]], self.ids[rows]
        if not come:
            return Content(self.keys.index_select(0, rows), old_ids, old_labels, classes, sources)
        # What stays is in order still, as classes keep theirs: what comes is put between, and nothing else is sorted.
        order = _order(new_labels, new_ids)
        new_labels, new_ids = new_labels[order], new_ids[order]
        span = 1 + int(torch.cat([old_ids, new_ids]).max())
        before_new = torch.searchsorted(old_labels * span + old_ids, new_labels * span + new_ids)
        places = before_new + torch.arange(len(come), device=device)
        others = torch.ones(len(rows) + len(come), dtype=torch.bool, device=device)
        others[places] = False
        chosen = torch.zeros(len(others), dtype=torch.int64, device=device)
        chosen[others] = rows
        keys, ids, labels = (each.index_select(0, chosen) for each in (self.keys, self.ids, renumbered[self.labels]))
        keys[places] = torch.stack([come[place][2] for place in order.tolist()]).to(keys)
        ids[places], labels[places] = new_ids, new_labels
        return Content(keys, ids, labels, classes, sources)

    def label_names(self, ids: Tensor) -> list[str]:
        """Names of the classes of some objects, all of which are here."""
        by_id, places = self.ids.sort()
        labels = self.labels[places[torch.searchsorted(by_id, ids.to(by_id.device))]]
        return [self.classes[label] for label in labels.tolist()]


def in_order(names: set[str], first: Sequence[str]) -> tuple[str, ...]:
    """Those of ``first`` that are there in its order, then the others by name.

    >>> in_order({"b", "zebra", "ape"}, ["z", "b"])
    ('b', 'ape', 'zebra')
    """
    return tuple(name for name in first if name in names) + tuple(sorted(names - set(first)))


def digest_of(fingerprint: str, segments: Mapping[int, Entry]) -> str:
    """SHA-256 of a memory: encoder, objects, labels and sources; equal whatever came and went before."""
    lines = [f"{number} {segments[number].digest} {segments[number].raw}" for number in sorted(segments)]
    return hashlib.sha256("\n".join([fingerprint, *lines]).encode()).hexdigest()


def _order(labels: Tensor, ids: Tensor) -> Tensor:
    by_id = ids.argsort()
    return by_id[labels[by_id].argsort(stable=True)]
