"""What a memory says of its own objects, each read by all others: labels that look wrong, and objects held twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memlab.data.parts import parts
from memlab.functional import class_log_mass, own_margin
from memlab.index import ExactIndex
from memlab.trained.answer import Answer, View

DUPLICATE = 0.05
"""Objects are near duplicates if they are closer than this share of the median distance to the nearest other."""


class Pair(NamedTuple):
    """Two objects that are nearly the same."""

    ids: tuple[int, int]
    """The smaller one first."""
    labels: tuple[str, str]
    distance: float
    """Over the median distance to the nearest other."""


class ClassSummary(NamedTuple):
    """How a class holds together."""

    name: str
    objects: int
    own_mass: float
    """Mean mass that its objects get for it from all others."""
    answered: float
    """Share of its objects that the others answer with it."""


@dataclass(frozen=True)
class Audit:
    """All N objects of a memory, the label that looks most wrong first.

    An object is read as if it were not in the memory. With ``y_ic`` the mass of class c that object i of class t gets,
    its own mass is ``y_it``: low, if the objects that are like it are of other classes. Its margin is the log of the
    odds ``y_it`` to the largest mass of another class, by which labels are put in order: it finds wrong labels no less
    well than the own mass, and better where much that is alike is in three classes or more.
    """

    ids: NDArray[np.int64]
    """(N,) by margin, least first."""
    labels: list[str]
    """(N,) as they are."""
    sources: list[str]
    """(N,) where they are from."""
    margin: NDArray[np.float64]
    """(N,) nats, see `memlab.functional.own_margin`; below 0 if another class has the largest mass."""
    own_mass: NDArray[np.float64]
    """(N,) y_it."""
    suggested: list[str]
    """(N,) the class with the largest mass, which may be the label."""
    suggested_mass: NDArray[np.float64]
    """(N,) its mass."""
    evidence: Answer
    """Of the first objects that are not answered with their label, as many as asked for, with the objects that weighed
    most."""
    duplicates: list[Pair]
    """The nearest first."""
    classes: list[ClassSummary]
    """The least own mass first."""

    @property
    def suspicious(self) -> int:
        """How many objects are answered with another class than their label."""
        return sum(label != other for label, other in zip(self.labels, self.suggested, strict=True))

    def values(self, limit: int) -> dict[str, Any]:
        """What was found as plain values, for JSON; of labels that look wrong and of duplicates the first ones."""
        columns = zip(
            self.ids.tolist(),
            self.labels,
            self.own_mass.tolist(),
            self.suggested,
            self.suggested_mass.tolist(),
            self.sources,
            strict=True,
        )
        names = ("id", "label", "own_mass", "suggested", "suggested_mass", "source")
        doubted = [dict(zip(names, row, strict=True)) for row in columns if row[1] != row[3]]
        known = zip(doubted[:limit], self.evidence.rows(wait=False), strict=False)  # as many as evidence was asked for
        return {
            "objects": len(self.ids),
            "suspicious": len(doubted),
            "labels": [{**row, "evidence": answer["evidence"]} for row, answer in known],
            "duplicates": [pair._asdict() for pair in self.duplicates[:limit]],
            "classes": [each._asdict() for each in self.classes],
        }


@torch.no_grad()
def audit(view: View, *, k: int, limit: int, progress: Callable[[int], object] | None) -> Audit:
    """Read every object with all others, in tiles; M^2 scores are computed and not held.

    Args:
        view: the memory.
        k: objects of the evidence.
        limit: suspicious objects that evidence is given for.
        progress: told the number of objects of each batch when it is done.
    """
    content, size = view.content, view.model.batch_size
    vectors = view.model.similarity.search_vectors(content.keys)
    index = ExactIndex()
    index.build(vectors, metric="L2")
    read, nearest = [], []
    for part in parts(len(content), size):
        read.append(view.class_scores(content.keys[part], content.ids[part]).double())
        own = torch.arange(part.start, part.stop, device=content.keys.device)
        nearest.append(index.search(vectors[part], 1, exclude=own)[:, 0])
        if progress is not None:
            progress(part.stop - part.start)
    class_scores = torch.cat(read)
    margin, mass = own_margin(class_scores, content.labels), class_log_mass(class_scores).exp()
    own_mass = mass.gather(1, content.labels[:, None])[:, 0]
    suggested_mass, suggested = mass.max(-1)
    order = margin.sort(stable=True).indices
    ids = content.ids[order]
    doubted = order[suggested[order] != content.labels[order]][:limit]
    return Audit(
        ids=ids.cpu().numpy(),
        labels=[content.classes[label] for label in content.labels[order].tolist()],
        sources=[content.sources[identity] for identity in ids.tolist()],
        margin=margin[order].cpu().numpy(),
        own_mass=own_mass[order].cpu().numpy(),
        suggested=[content.classes[label] for label in suggested[order].tolist()],
        suggested_mass=suggested_mass[order].cpu().numpy(),
        evidence=view.answer(content.keys[doubted], k=k, coverage=None, exclude=content.ids[doubted]),
        duplicates=_duplicates(view, vectors, torch.cat(nearest)),
        classes=_summaries(view, own_mass, suggested),
    )


def _duplicates(view: View, vectors: torch.Tensor, nearest: torch.Tensor) -> list[Pair]:
    content = view.content
    distances = (vectors - vectors[nearest]).double().norm(dim=1)
    usual = float(distances.median())
    close = (distances <= DUPLICATE * usual).nonzero().flatten()
    found = {}
    for place, other, distance in zip(close.tolist(), nearest[close].tolist(), distances[close].tolist(), strict=True):
        first, second = sorted((place, other), key=lambda each: int(content.ids[each]))
        names = content.classes[int(content.labels[first])], content.classes[int(content.labels[second])]
        ids = int(content.ids[first]), int(content.ids[second])
        found[ids] = Pair(ids, names, distance / usual if usual else 0.0)
    return sorted(found.values(), key=lambda pair: (pair.distance, pair.ids))


def _summaries(view: View, own_mass: torch.Tensor, suggested: torch.Tensor) -> list[ClassSummary]:
    labels = view.content.labels
    counts = labels.bincount(minlength=len(view.content.classes)).double()
    means = labels.bincount(own_mass, minlength=len(counts)) / counts
    right = labels.bincount((suggested == labels).double(), minlength=len(counts)) / counts
    rows = zip(view.content.classes, counts.long().tolist(), means.tolist(), right.tolist(), strict=True)
    return sorted((ClassSummary(*row) for row in rows), key=lambda each: each.own_mass)
