"""Fewer objects that answer as all do: which to keep, and what is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from memlab.functional import class_turns, greedy_medoids, nll
from memlab.trained.answer import View
from memlab.trained.calibration import numbers_of

TOGETHER = 4096
"""Largest cell of a class, whose distances from one another are held at a time: 64 MiB of float32."""
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Of the objects, of a curve."""


class Measured(NamedTuple):
    """What a memory of some size is worth on the calibration objects."""

    objects: int
    """Stored."""
    accuracy: float
    nll: float
    """Mean over the calibration objects whose class the memory knows, at the temperature in use."""
    agreement: float
    """Share of the calibration objects that are answered as by the memory as it is."""


@dataclass(frozen=True)
class Condensed:
    """What condensing has done."""

    folder: Path
    """Where the condensed memory is."""
    kept: int
    ids: list[int]
    """Of the objects that it does not hold."""
    before: Measured | None
    """None of a memory without calibration objects."""
    after: Measured | None
    digest_before: str
    digest_after: str
    """That of a memory that never held the objects that are gone."""
    not_undone: tuple[str, ...]
    """Empty if the memory that was condensed is still there."""


def objects_to_keep(keep: object, view: View) -> int:
    """How many objects a share, or a number of them, is.

    Raises:
        ValueError: if it is neither, leaves less than one for each class, or leaves all.
    """
    objects, classes = len(view.content), len(view.content.classes)
    count, share = 0, False
    if not isinstance(keep, bool) and isinstance(keep, Integral):
        count = int(keep)
    elif isinstance(keep, Real) and 0 < float(keep) < 1:
        count, share = round(float(keep) * objects), True
    if not classes <= count < objects:
        named = f" (that is {count:,} objects)" if share else ""
        raise ValueError(
            f"keep={keep}{named}: must be a share above 0 and below 1, or a whole number, that leaves one object for"
            f" each of {classes:,} classes and fewer than all {objects:,}"
        )
    return count


@torch.no_grad()
def kept_first(view: View, count: int, *, progress: Callable[[int], object] | None = None) -> Tensor:
    """Places of the objects to keep, in an order of which each beginning that has all classes is a choice of its own.

    Classes have as many as `memlab.functional.class_turns` says, so that their masses keep their ratios. Within a class
    c those are kept that bring down ``sum_{i: y_i=c} min_s |m_i - m_s|^2`` over the kept s: each object is to have one
    of its class near it still. With Gaussian scores that is the largest likelihood of a nearest neighbour (Wei, Iyer
    and Bilmes, "Submodularity in data subset selection and active learning", 2015, section 3). Embeddings are compared
    as the similarity compares them, of length 1 with a cosine.

    Args:
        view: the memory.
        count: how many, at least C.
        progress: told numbers of objects that are done.
    """
    content = view.content
    sizes = content.labels.cpu().bincount(minlength=len(content.classes))
    turns = class_turns(sizes, count)
    points = view.model.similarity.search_vectors(content.keys).cpu()
    places, start = torch.empty_like(turns), 0
    for label, size in enumerate(sizes.tolist()):
        mine = (turns == label).nonzero().flatten()
        places[mine] = start + _medoids(points[start : start + size], len(mine), progress)
        start += size
    return places.to(content.keys.device)


def measured(view: View, sizes: Sequence[int], order: Tensor) -> list[Measured]:
    """The memory as it is, and with the first objects of an order, as many as each of some sizes says.

    Raises:
        ValueError: if there are no calibration objects.
    """
    if view.calibration is None:
        raise ValueError("the memory has no calibration objects to measure with; give it some with calibrate")
    queries = view.calibration.queries.to(view.model.device)
    truth = numbers_of(view.calibration.labels, view.content.classes)
    known = truth >= 0
    full = view.class_scores(queries).argmax(-1).cpu()
    found = []
    for each in [view, *(_of(view, order[:size]) for size in sizes)]:
        scores = each.class_scores(queries).cpu()
        answers = scores.argmax(-1)
        found.append(
            Measured(
                len(each.content),
                float((answers == truth).double().mean()),
                float(nll(scores[known] / view.temperature, truth[known]).mean()),
                float((answers == full).double().mean()),
            )
        )
    return found


def _of(view: View, places: Tensor) -> View:
    """The same memory with the objects at some places alone, in which each class has one."""
    chosen, content = places.sort().values, view.content
    content = replace(content, keys=content.keys[chosen], labels=content.labels[chosen], ids=content.ids[chosen])
    return View(
        view.model,
        content,
        reads_objects=view.reads_objects,
        calibration=view.calibration,
        temperature=view.temperature,
        digest="",
    )


def _medoids(points: Tensor, count: int, progress: Callable[[int], object] | None) -> Tensor:
    """(count,) places of points that the others are near to; see `memlab.functional.greedy_medoids`.

    The first is the best one alone, the nearest to the mean. For the others the points fall into cells, where a choice
    helps the points of its cell alone; the gains of all cells tell who is next.
    """
    first = int(_squares(points - points.mean(0)).argmin())
    chosen, gains = [torch.tensor([first])], [torch.tensor([torch.inf], dtype=torch.float64)]
    others = torch.cat([torch.arange(first), torch.arange(first + 1, len(points))])
    for cell in _cells(points, others) if count > 1 else []:
        found = torch.cat(gains)
        least = float(found.topk(count).values[-1]) if len(found) >= count else -torch.inf
        own = points[cell] - points[cell].mean(0)  # whose squares are small: no rounding of the distances
        lengths = _squares(own)
        distances = (lengths[:, None] + lengths - 2 * own @ own.T).clamp_(min=0).fill_diagonal_(0)
        nearest = _squares(points[cell] - points[first])
        picked, gained = greedy_medoids(distances, nearest, min(count - 1, len(cell)), least=least)
        chosen.append(cell[picked])
        gains.append(gained)
        if progress is not None:
            progress(len(cell))
    return torch.cat(chosen)[torch.cat(gains).sort(descending=True, stable=True).indices[:count]]


def _cells(points: Tensor, places: Tensor) -> Iterator[Tensor]:
    """Places of points that lie together, halved along the direction in which they differ most until they are few."""
    if len(places) <= TOGETHER:
        if len(places):
            yield places
        return
    own = points[places] - points[places].mean(0)
    _, directions = torch.linalg.eigh((own.T @ own).double())
    order = (own @ directions[:, -1].to(own)).argsort(stable=True)
    for half in order.tensor_split(2):
        yield from _cells(points, places[half.sort().values])


def _squares(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1)
