"""A memory's folder from what a training leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from memlab.data.objects import ObjectStore
from memlab.memory import StoredKeys
from memlab.trained.answer import View
from memlab.trained.calibration import CalibrationObjects, numbers_of, own_nonconformity
from memlab.trained.content import Content
from memlab.trained.folder import MANIFEST, Calibration, Manifest, MemoryFolder
from memlab.trained.model import Model
from memlab.trained.segments import SIZE, Segment, places_by_segment


def create(
    folder: Path,
    *,
    model: Model,
    keys: StoredKeys,
    store: ObjectStore,
    source: Callable[[int], str],
    calibration_rows: Tensor,
    keep: str,
    about: Mapping[str, Any],
) -> None:
    """Write the memory of a training into a new folder.

    Args:
        folder: where to.
        model: encodes and reads.
        keys: what is read in evaluation, of the training objects or of classes.
        store: all objects; rows are the ids of the keys.
        source: tells of a row where its object is from.
        calibration_rows: (n,) rows of objects that were held out.
        keep: of raw inputs; see `memlab.trained.objects.ObjectKind.kept`.
        about: where the memory comes from, plain values.
    """
    folder.mkdir(parents=True)
    on_disk = MemoryFolder(folder)
    fingerprint = model.fingerprint()
    reads_objects = bool((keys.ids >= 0).all())
    segments = list(_segments(model, keys, store, source, keep) if reads_objects else _of_classes(keys, store))
    numbered = {int(segment.ids[0]) // SIZE: segment for segment in segments}
    for number, segment in numbered.items():
        on_disk.write(segment.entry.file(number), segment.to_bytes(fingerprint))
    manifest = Manifest(
        model=model.described(),
        fingerprint=fingerprint,
        classes=tuple(store.class_names),
        keep=keep,
        reads_objects=reads_objects,
        about=dict(about),
        calibration=None,
        segments={number: segment.entry for number, segment in numbered.items()},
        next_id=len(store) if reads_objects else len(keys),
    )
    on_disk.write(manifest.weights, save(model.weights()))
    content = Content.of(segments, first=manifest.classes, device=model.device)
    view = View(model, content, reads_objects=reads_objects, calibration=None, temperature=1.0, digest=manifest.digest)
    queries = model.encode(store.inputs[calibration_rows.to(store.inputs_device)])
    names = tuple(store.class_names[label] for label in store.labels[calibration_rows.to(store.device)].tolist())
    measured = own_nonconformity(view.class_scores(queries).cpu(), numbers_of(names, content.classes))
    calibration = CalibrationObjects(queries.cpu(), names, measured, manifest.digest)
    noted = Calibration(len(calibration), calibration.digest, 1.0)
    on_disk.write(noted.file, calibration.to_bytes())
    on_disk.write(MANIFEST, replace(manifest, calibration=noted).to_bytes())


def _segments(
    model: Model, keys: StoredKeys, store: ObjectStore, source: Callable[[int], str], keep: str
) -> list[Segment]:
    """The objects by id, a stretch at a time, as raw inputs may be larger than memory."""
    ids, order = keys.ids.cpu().sort()
    vectors, labels = keys.keys.detach().cpu(), keys.labels.cpu()
    found = []
    for _, part in places_by_segment(ids):
        own, places = ids[part], order[part]
        raw = None if keep == "none" else model.kind.kept(store.inputs[own.to(store.inputs_device)].cpu(), keep)
        names = tuple(store.class_names[label] for label in labels[places].tolist())
        found.append(Segment(own, vectors[places], names, tuple(map(source, own.tolist())), raw))
    return found


def _of_classes(keys: StoredKeys, store: ObjectStore) -> list[Segment]:
    """Keys of classes, numbered in place of ids."""
    names = tuple(store.class_names[label] for label in keys.labels.tolist())
    whole = Segment(torch.arange(len(keys)), keys.keys.detach().cpu(), names, ("",) * len(names), None)
    return [whole.of(part) for part in torch.arange(len(keys)).split(SIZE)]
