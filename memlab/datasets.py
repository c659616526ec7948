"""Where labelled objects come from: each loader gives all of them and the split into training and test."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split
from torch import Tensor

from memlab.argument_checks import check_choice, check_number, check_switch, check_whole_number
from memlab.objects import ObjectStore


@dataclass
class LabelledData:
    """A data set and its official split."""

    name: str
    store: ObjectStore
    train_rows: Tensor
    """(N,) rows for training and validation."""
    test_rows: Tensor
    """(T,) rows for the test."""


def digits(*, test_fraction: float, split_seed: int) -> LabelledData:
    """scikit-learn's bundled digits: 1,797 real images 8 x 8, grey levels 0 to 16, ten classes.

    They come without a split: a stratified share is held out for the test.

    Args:
        test_fraction: share of the objects held out, between 0 and 1.
        split_seed: seed of that split, apart from the seed of a run, so that all runs are tested on the same objects.

    Raises:
        ValueError: for a fraction or a seed out of range.
    """
    bunch = load_digits()
    store = ObjectStore(
        inputs=torch.from_numpy(bunch.images.astype(np.uint8))[:, None],
        labels=torch.from_numpy(bunch.target).long(),
        class_names=tuple(str(name) for name in bunch.target_names),
    )
    check_number("test_fraction", test_fraction, above=0, below=1)
    train_rows, test_rows = stratified_split(
        torch.arange(len(store)), store.labels, held_out=test_fraction, seed=split_seed
    )
    return LabelledData("digits", store, train_rows, test_rows)


TORCHVISION_IMAGES = {"mnist": torchvision.datasets.MNIST, "fashion_mnist": torchvision.datasets.FashionMNIST}


def torchvision_images(*, name: str, root: str, download: bool) -> LabelledData:
    """MNIST or Fashion-MNIST with their official split, through torchvision's own loader.

    Args:
        name: ``mnist`` or ``fashion_mnist``.
        root: folder that holds, or is to hold, torchvision's folder of the data set.
        download: fetch what is missing; a download that fails leaves nothing behind.

    Raises:
        ValueError: if files are missing and not to be had, or cannot be read, or are damaged.
    """
    dataset = TORCHVISION_IMAGES[check_choice("name", name, TORCHVISION_IMAGES)]
    folder = Path(str(root))
    files = [folder / dataset.__name__ / "raw" / Path(resource).stem for resource, _ in dataset.resources]
    if missing := [str(file) for file in files if not file.is_file()]:
        if not check_switch("download", download):
            raise ValueError(f"root={root}: lacks {missing[0]}; name another folder, or set data.download=true")
        _download(dataset, folder)
    try:
        train, test = (dataset(str(folder), train=train) for train in (True, False))
        store = ObjectStore(
            inputs=torch.cat([train.data, test.data])[:, None],
            labels=torch.cat([train.targets, test.targets]).long(),
            class_names=tuple(label.split(" - ")[0] for label in dataset.classes),
        )
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, OSError) as error:
        raise ValueError(
            f"root={root}: cannot read {files[0].parent}, a file there is truncated, damaged or unreadable"
            f" ({type(error).__name__}: {error}); remove it and download again"
        ) from error
    rows = torch.arange(len(store))
    return LabelledData(name, store, rows[: len(train)], rows[len(train) :])


def _download(dataset: type[torchvision.datasets.MNIST], folder: Path) -> None:
    """Download to a folder of its own and move the files in when they are all there."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".download-") as staging:
            dataset(staging, download=True)
            shutil.copytree(staging, folder, dirs_exist_ok=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"root={folder}: has no complete {dataset.__name__}, and the download failed"
            f" ({str(error).splitlines()[0].rstrip(':')}); is there a network? Or name a folder that has it"
        ) from error


def stratified_split(rows: Tensor, labels: Tensor, *, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows in two, class by class, the same way for the same seed.

    Args:
        rows: (n,) rows of a store.
        labels: (N,) class ids of all rows of the store.
        held_out: share that goes to the second part, between 0 and 1.
        seed: seed of the split.

    Returns:
        the rows kept and the rows held out, each in ascending order.

    Raises:
        ValueError: for a seed below 0, or too few objects of a class to have some in both parts.
    """
    check_whole_number("split_seed", seed, minimum=0)
    try:
        kept, held = train_test_split(
            rows.numpy(), test_size=held_out, random_state=seed, stratify=labels[rows].numpy()
        )
    except ValueError as error:
        raise ValueError(f"held-out share {held_out}: {error}") from error
    return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(held))


def synthetic_table(
    *, objects: int, features: int, classes: int, clusters: int, test_fraction: float, seed: int
) -> LabelledData:
    """Rows that scikit-learn's ``make_classification`` makes: every class is several Gaussian clusters.

    Half of the features tell something of the class, a quarter are linear combinations of these, a quarter are noise.

    Args:
        objects: rows for training, validation and test together.
        features: columns, at least 4.
        classes: C.
        clusters: clusters of each class.
        test_fraction: share of the rows held out, class by class.
        seed: of the rows and of the split, apart from the seed of a run.

    Raises:
        ValueError: for a number out of range, or more clusters than the features have corners.
    """
    check_whole_number("objects", objects)
    check_whole_number("features", features, minimum=4)
    check_whole_number("classes", classes, minimum=2)
    check_whole_number("clusters", clusters)
    check_whole_number("seed", seed, minimum=0)
    check_number("test_fraction", test_fraction, above=0, below=1)
    if classes * clusters > 2 ** (features // 2):
        raise ValueError(
            f"clusters={clusters}: must be at most {2 ** (features // 2) // classes} for {classes} classes and"
            f" {features} features"
        )
    rows, labels = make_classification(
        objects,
        features,
        n_informative=features // 2,
        n_redundant=features // 4,
        n_classes=classes,
        n_clusters_per_class=clusters,
        flip_y=0,
        random_state=seed,
    )
    store = ObjectStore(
        inputs=torch.from_numpy(rows.astype(np.float32)),
        labels=torch.from_numpy(labels).long(),
        class_names=tuple(map(str, range(classes))),
    )
    train_rows, test_rows = stratified_split(torch.arange(len(store)), store.labels, held_out=test_fraction, seed=seed)
    return LabelledData("synthetic_table", store, train_rows, test_rows)
