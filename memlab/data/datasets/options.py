"""Options that every data set has: fewer training objects, some classes only, wrong labels, images as sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memlab.checks import check_choice, check_number, check_whole_number
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences

OPTIONS = ("classes", "train_fraction", "flip_labels", "options_seed")
"""What `varied` takes besides the data."""
SEQUENCES = ("pixel_rows", "pixels")
"""What `as_sequences` makes of images."""


def varied(
    data: LabelledData,
    *,
    classes: Sequence[object] | None = None,
    train_fraction: float = 1.0,
    flip_labels: float = 0.0,
    options_seed: int = 0,
) -> LabelledData:
    """A data set with fewer objects or wrong labels; what is left out changes nothing.

    All inputs stay in the store, so that ids are what they were; objects of classes left out are in no class, -1.

    First some classes are left out, then some training objects, then labels of the training objects that are left are
    flipped. Those held out of the training objects for validation have flipped labels too, as they would in earnest.

    Args:
        data: as it was loaded.
        classes: names of the classes kept, which are numbered in this order; None for all.
        train_fraction: share of the training objects kept, class by class; above 0, at most 1.
        flip_labels: share of the training objects that get a label drawn from the other classes; from 0 below 1.
        options_seed: of both draws, apart from the seed of a run, so that all runs have the same objects.

    Raises:
        ValueError: for a value out of range, a class that there is not, or fewer than two classes.
    """
    check_number("train_fraction", train_fraction, above=0)
    if train_fraction > 1:
        raise ValueError(f"train_fraction={train_fraction}: must be at most 1, all training objects")
    check_number("flip_labels", flip_labels, at_least=0, below=1)
    check_whole_number("options_seed", options_seed, minimum=0)
    if classes is None and train_fraction == 1 and not flip_labels:
        return data
    if classes is not None:
        data = _of_classes(data, classes)
    train_rows = data.train_rows
    if train_fraction < 1:
        try:
            train_rows, _ = stratified_split(
                train_rows, data.store.labels, held_out=1 - train_fraction, seed=options_seed
            )
        except ValueError as error:
            raise ValueError(f"train_fraction={train_fraction}: {error}") from error
    labels = data.store.labels
    if flip_labels:
        labels = _flipped(labels, train_rows, len(data.store.class_names), share=flip_labels, seed=options_seed)
    varied = _relabelled(data, labels, data.store.class_names, train_rows, data.test_rows)
    return replace(varied, true_labels=data.store.labels) if flip_labels else varied


def as_sequences(data: LabelledData, read: str | None, *, shrink: int = 1) -> LabelledData:
    """A data set of images as one of sequences.

    Args:
        data: as it was loaded.
        shrink: squares of so many pixels to a side become one before, their mean: sequences get as many times shorter.
        read: ``pixel_rows``, a row of an image in a step, all channels side by side; ``pixels``, one pixel in a step,
            row by row; None for objects as they are.

    Raises:
        ValueError: for another word, objects that are no images, or squares that do not fill them.
    """
    check_whole_number("shrink", shrink)
    if read is None:
        if shrink > 1:
            raise ValueError(f"shrink={shrink}: is for images that are read as sequences; must be 1, or as one of them")
        return data
    check_choice("as", read, SEQUENCES)
    images = data.store.inputs
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise ValueError(f"as={read}: is for images (channels, height, width); objects are {data.store.input_shape}")
    if images.shape[2] % shrink or images.shape[3] % shrink:
        raise ValueError(f"shrink={shrink}: must divide the sides of images {tuple(images.shape[1:])}")
    images = _shrunk(images, shrink)
    rows = images.permute(0, 2, 1, 3) if read == "pixel_rows" else images.flatten(2).permute(0, 2, 1)
    steps = rows.flatten(2)
    lengths = torch.full((len(steps),), steps.shape[1])
    store = ObjectStore(
        inputs=Sequences(steps.flatten(0, 1), lengths), labels=data.store.labels, class_names=data.store.class_names
    )
    return replace(data, store=store)


def _shrunk(images: Tensor, side: int) -> Tensor:
    """(N, channels, height / side, width / side) means, of whole numbers to the nearest."""
    if side == 1:
        return images
    mean = torch.cat([torch.nn.functional.avg_pool2d(part.float(), side) for part in images.split(1000)])
    return mean.to(images.dtype) if images.is_floating_point() else mean.round().to(images.dtype)


def _of_classes(data: LabelledData, classes: Sequence[object]) -> LabelledData:
    names = data.store.class_names
    kept = [str(name) for name in classes] if not isinstance(classes, str) else [classes]
    if unknown := [name for name in kept if name not in names]:
        listed = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
        raise ValueError(f"classes={unknown[0]}: must be among {listed}")
    if len(set(kept)) < max(len(kept), 2):
        raise ValueError(f"classes=[{', '.join(kept)}]: must be two classes or more, none of them twice")
    number = torch.full((len(names) + 1,), -1)  # the last is of objects that were in no class before
    number[torch.tensor([names.index(name) for name in kept])] = torch.arange(len(kept))
    labels = number[data.store.labels]
    train_rows, test_rows = (rows[labels[rows] >= 0] for rows in (data.train_rows, data.test_rows))
    return _relabelled(data, labels, tuple(kept), train_rows, test_rows)


def _flipped(labels: Tensor, rows: Tensor, num_classes: int, *, share: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    chosen = rows[torch.randperm(len(rows), generator=generator)[: round(share * len(rows))]]
    step = torch.randint(1, num_classes, (len(chosen),), generator=generator)
    return labels.index_copy(0, chosen, (labels[chosen] + step) % num_classes)


def _relabelled(
    data: LabelledData, labels: Tensor, class_names: tuple[str, ...], train_rows: Tensor, test_rows: Tensor
) -> LabelledData:
    given = data.store
    store = ObjectStore(
        inputs=given.inputs, labels=labels, class_names=class_names, columns=given.columns, texts=given.texts
    )
    return replace(data, store=store, train_rows=train_rows, test_rows=test_rows)
