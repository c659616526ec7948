"""A memory's folder from what a training leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from memlab.data.objects import ObjectStore, raw_objects
from memlab.memory import StoredKeys
from memlab.trained.answer import View
from memlab.trained.calibration import CalibrationObjects, numbers_of, own_nonconformity
from memlab.trained.content import Content
from memlab.trained.folder import MANIFEST, Calibration, Manifest, MemoryFolder
from memlab.trained.model import Model
from memlab.trained.segments import SIZE, Segment, places_by_segment, split


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
    reads_objects = bool((keys.ids >= 0).all())
    segments = (
        _segments(model, keys, store, source, keep) if reads_objects else list(split(classes_of(keys, store)).values())
    )
    manifest = write_objects(
        folder,
        model=model,
        segments={int(segment.ids[0]) // SIZE: segment for segment in segments},
        classes=tuple(store.class_names),
        keep=keep,
        reads_objects=reads_objects,
        next_id=len(store) if reads_objects else len(keys),
        about=about,
    )
    content = Content.of(segments, first=manifest.classes, device=model.device)
    view = View(model, content, reads_objects=reads_objects, calibration=None, temperature=1.0, digest=manifest.digest)
    queries = model.encode(raw_objects(store.inputs, calibration_rows))
    names = tuple(store.class_names[label] for label in store.labels[calibration_rows.to(store.device)].tolist())
    measured = own_nonconformity(view.class_scores(queries).cpu(), numbers_of(names, content.classes))
    calibration = CalibrationObjects(queries.cpu(), names, measured, manifest.digest)
    noted = Calibration(len(calibration), calibration.digest, 1.0)
    on_disk = MemoryFolder(folder)
    on_disk.write(noted.file, calibration.to_bytes())
    on_disk.write(MANIFEST, replace(manifest, calibration=noted).data)


def write_objects(
    folder: Path,
    *,
    model: Model,
    segments: Mapping[int, Segment],
    classes: tuple[str, ...],
    keep: str,
    reads_objects: bool,
    next_id: int,
    about: Mapping[str, Any],
) -> Manifest:
    """Write encoder and objects into an empty folder, without calibration objects.

    Args:
        folder: where to.
        model: encodes and reads.
        segments: the objects, or keys of classes, by number.
        classes: names of the classes that come first, in this order.
        keep: what is kept of raw inputs.
        reads_objects: False for keys that are of classes.
        next_id: of the next object.
        about: where the memory comes from, plain values.

    Returns:
        the manifest, which is not written: with it the memory is whole.
    """
    on_disk, fingerprint = MemoryFolder(folder), model.fingerprint()
    for number, segment in segments.items():
        on_disk.write(segment.entry.file(number), segment.to_bytes(fingerprint))
    manifest = Manifest(
        model=model.described(),
        fingerprint=fingerprint,
        classes=classes,
        keep=keep,
        reads_objects=reads_objects,
        about=dict(about),
        calibration=None,
        segments={number: segment.entry for number, segment in segments.items()},
        next_id=next_id,
    )
    on_disk.write(manifest.weights, save(model.weights()))
    return manifest


def objects_of(
    model: Model, keys: StoredKeys, store: ObjectStore, source: Callable[[int], str], keep: str, places: Tensor
) -> Segment:
    """The objects whose keys are at some places, by ascending id; rows of the store are their ids."""
    ids, labels = keys.ids[places].cpu(), keys.labels[places].cpu()
    raw = None if keep == "none" else model.kind.kept(raw_objects(store.inputs, ids).cpu(), keep)
    names = tuple(store.class_names[label] for label in labels.tolist())
    return Segment(ids, keys.keys[places].detach().cpu(), names, tuple(map(source, ids.tolist())), raw)


def classes_of(keys: StoredKeys, store: ObjectStore) -> Segment:
    """Keys of classes, numbered in place of ids."""
    names = tuple(store.class_names[label] for label in keys.labels.tolist())
    return Segment(torch.arange(len(keys)), keys.keys.detach().cpu(), names, ("",) * len(names), None)


def _segments(
    model: Model, keys: StoredKeys, store: ObjectStore, source: Callable[[int], str], keep: str
) -> list[Segment]:
    """The objects by id, a stretch at a time, as raw inputs may be larger than memory."""
    ids, order = keys.ids.sort()
    parts = [part for _, part in places_by_segment(ids.cpu())]
    return [objects_of(model, keys, store, source, keep, order[part.to(order.device)]) for part in parts]
