"""What scikit-learn bundles or makes; nothing is downloaded. It is imported by whoever asks for it."""

from __future__ import annotations

import numpy as np
import torch

from memlab.checks import check_number, check_whole_number
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.objects import ObjectStore


def digits(*, test_fraction: float, split_seed: int) -> LabelledData:
    """scikit-learn's bundled digits: 1,797 real images 8 x 8, grey levels 0 to 16, ten classes.

    They come without a split: a stratified share is held out for the test.

    Args:
        test_fraction: share of the objects held out, between 0 and 1.
        split_seed: seed of that split, apart from the seed of a run, so that all runs are tested on the same objects.

    Raises:
        ValueError: for a fraction or a seed out of range.
    """
    from sklearn.datasets import load_digits

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
    return LabelledData("digits", store, train_rows, test_rows, levels=16)


def synthetic_table(
    *, objects: int, features: int, num_classes: int, clusters: int, test_fraction: float, seed: int
) -> LabelledData:
    """Rows that scikit-learn's ``make_classification`` makes: every class is several Gaussian clusters.

    Half of the features tell something of the class, a quarter are linear combinations of these, a quarter are noise.

    Args:
        objects: rows for training, validation and test together.
        features: columns, at least 4.
        num_classes: C.
        clusters: clusters of each class.
        test_fraction: share of the rows held out, class by class.
        seed: of the rows and of the split, apart from the seed of a run.

    Raises:
        ValueError: for a number out of range, or more clusters than the features have corners.
    """
    from sklearn.datasets import make_classification

    check_whole_number("objects", objects)
    check_whole_number("features", features, minimum=4)
    check_whole_number("num_classes", num_classes, minimum=2)
    check_whole_number("clusters", clusters)
    check_whole_number("seed", seed, minimum=0)
    check_number("test_fraction", test_fraction, above=0, below=1)
    if num_classes * clusters > 2 ** (features // 2):
        raise ValueError(
            f"clusters={clusters}: must be at most {2 ** (features // 2) // num_classes} for {num_classes} classes and"
            f" {features} features"
        )
    rows, labels = make_classification(
        objects,
        features,
        n_informative=features // 2,
        n_redundant=features // 4,
        n_classes=num_classes,
        n_clusters_per_class=clusters,
        flip_y=0,
        random_state=seed,
    )
    store = ObjectStore(
        inputs=torch.from_numpy(rows.astype(np.float32)),
        labels=torch.from_numpy(labels).long(),
        class_names=tuple(map(str, range(num_classes))),
    )
    train_rows, test_rows = stratified_split(torch.arange(len(store)), store.labels, held_out=test_fraction, seed=seed)
    return LabelledData("synthetic_table", store, train_rows, test_rows)
