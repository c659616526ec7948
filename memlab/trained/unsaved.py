"""A trained memory in no folder: read, taught and written by a process that has just trained it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memlab.data.objects import ObjectStore
from memlab.data.parts import parts
from memlab.data.sequences import joined
from memlab.files import check_new_or_empty
from memlab.functional import class_log_mass
from memlab.memory import StoredKeys
from memlab.trained.answer import View
from memlab.trained.content import Content
from memlab.trained.creation import classes_of, objects_of, write_objects
from memlab.trained.folder import MANIFEST, MemoryFolder
from memlab.trained.model import Model
from memlab.trained.segments import Segment, split


class Neighbours(NamedTuple):
    """The k nearest objects of each query, nearest first."""

    distances: Tensor
    """(n, k) Euclidean distances of `memlab.memory.similarity.Similarity.points`."""
    ids: Tensor
    """(n, k) which object."""


@dataclass(frozen=True)
class UnsavedMemory:
    """Encoder and objects. Never changed: to add objects, or take some out, makes another.

    Args:
        model: encodes and reads.
        objects: all objects, or keys of classes in their place.
        classes: names of the classes that come first, in this order.
        keep: of raw inputs; see `memlab.trained.objects.ObjectKind.kept`.
        reads_objects: False for keys of classes.
        next_id: of the next object.
        about: where the memory comes from, plain values.
    """

    model: Model
    objects: Segment
    classes: tuple[str, ...]
    keep: str
    reads_objects: bool
    next_id: int
    about: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: Model,
        keys: StoredKeys,
        store: ObjectStore,
        *,
        source: Callable[[int], str],
        keep: str,
        about: Mapping[str, Any],
    ) -> UnsavedMemory:
        """What a training leaves; see `memlab.trained.creation.create`."""
        reads_objects = bool((keys.ids >= 0).all())
        if reads_objects:
            objects = objects_of(model, keys, store, source, keep, keys.ids.argsort())
        else:
            objects = classes_of(keys, store)
        next_id = len(store) if reads_objects else len(keys)
        return cls(model, objects, tuple(store.class_names), keep, reads_objects, next_id, dict(about))

    def __len__(self) -> int:
        return len(self.objects)

    def __getstate__(self) -> dict[str, Any]:
        """Without what follows from the rest."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _view(self) -> View:
        content = Content.of([self.objects], first=self.classes, device=self.model.device)
        return View(self.model, content, reads_objects=self.reads_objects, calibration=None, temperature=1.0, digest="")

    @property
    def present(self) -> tuple[str, ...]:
        """(C,) names of the classes that have objects, in the order of `probabilities`."""
        return self._view.content.classes

    def probabilities(self, inputs: Any) -> Tensor:
        """(n, C) class mass of raw inputs (n, ...)."""
        scores = [self._view.class_scores(queries) for queries in self._encoded(inputs)]
        return class_log_mass(torch.cat(scores)).exp().cpu()

    def neighbours(self, inputs: Any | None, *, k: int) -> Neighbours:
        """The nearest of all objects by the learned similarity, however many an answer reads.

        Args:
            inputs: (n, ...) raw inputs; None for the objects themselves by ascending id, each without itself.
            k: at most the objects there are to find.
        """
        content, similarity = self._view.content, self.model.similarity
        stored = StoredKeys(content.keys, content.labels, content.ids, len(content.classes), similarity)
        if inputs is None:
            queries = self.objects.keys.to(self.model.device)
            own: Tensor | None = self.objects.ids.to(self.model.device)
        else:
            queries, own = torch.cat(list(self._encoded(inputs))), None
        with torch.no_grad():
            of_queries, of_keys = similarity.points(queries, content.keys)
            found = []
            for part in parts(len(queries), self.model.batch_size):
                exclude = None if own is None else own[part]
                places = stored.read_with_strongest(queries[part], k, exclude).strongest.places
                distances = (of_queries[part, None] - of_keys[places]).norm(dim=-1)
                distances, order = distances.sort(dim=-1, stable=True)  # scores are rounded otherwise
                found.append((distances.cpu(), content.ids[places.gather(-1, order)].cpu()))
        return Neighbours(*map(torch.cat, zip(*found, strict=True)))

    def with_more(self, inputs: Any, labels: Sequence[str], source: Callable[[int], str]) -> UnsavedMemory:
        """The memory with new objects, of new classes too.

        Args:
            inputs: (n, ...) raw inputs.
            labels: (n,) names of their classes.
            source: tells of an id where its object is from.
        """
        batches = list(self.model.kind.batches(inputs, self.model.batch_size))
        keys = torch.cat([self.model.encode(batch.raw).cpu() for batch in batches]).to(self.objects.keys.dtype)
        kept = [self.model.kind.kept(batch.raw, self.keep) for batch in batches]
        raw = None if kept[0] is None else joined([each for each in kept if each is not None])
        ids = torch.arange(self.next_id, self.next_id + len(keys))
        new = Segment(ids, keys, tuple(labels), tuple(map(source, ids.tolist())), raw)
        return replace(self, objects=self.objects.followed_by(new), next_id=self.next_id + len(keys))

    def without(self, ids: Tensor) -> UnsavedMemory:
        """The memory without some objects, of which some must be left."""
        return replace(self, objects=self.objects.of((~torch.isin(self.objects.ids, ids)).nonzero().flatten()))

    def save(self, folder: Path) -> None:
        """Write it into a new or empty folder, for `memlab.load`.

        Raises:
            ValueError: if there is something in the folder.
        """
        check_new_or_empty("folder", folder).mkdir(parents=True, exist_ok=True)
        manifest = write_objects(
            folder,
            model=self.model,
            segments=split(self.objects),
            classes=self.classes,
            keep=self.keep,
            reads_objects=self.reads_objects,
            next_id=self.next_id,
            about=self.about,
        )
        MemoryFolder(folder).write(MANIFEST, manifest.data)

    def _encoded(self, inputs: Any) -> Iterator[Tensor]:
        for batch in self.model.kind.batches(inputs, self.model.batch_size):
            yield self.model.encode(batch.raw)
