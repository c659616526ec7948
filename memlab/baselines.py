"""What a user would take instead of a trained memory, on the same split."""

from __future__ import annotations

from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from memlab.argument_checks import check_whole_number
from memlab.objects import ObjectStore


class PixelKNN:
    """k nearest neighbours by Euclidean distance between raw inputs, majority vote; scikit-learn's, exact.

    Args:
        k: neighbours that vote.

    Raises:
        ValueError: if k is not a whole number of at least 1.
    """

    def __init__(self, *, k: int) -> None:
        self.k = check_whole_number("k", k)

    def check_fit(self, *, train_size: int) -> None:
        """See that there are k neighbours.

        Raises:
            ValueError: if the training set is smaller than k.
        """
        if self.k > train_size:
            raise ValueError(f"knn_pixels.k={self.k}: must be at most {train_size}, the size of the training set")

    def accuracy(self, store: ObjectStore, *, train_rows: Tensor, test_rows: Tensor) -> float:
        """Share of the test rows that the vote of their k nearest training rows gets right, from 0 to 1."""
        pixels = store.inputs.cpu().flatten(1).float().numpy()
        labels = store.labels.cpu().numpy()
        classifier = KNeighborsClassifier(n_neighbors=self.k, algorithm="brute")
        classifier.fit(pixels[train_rows], labels[train_rows])
        return float(classifier.score(pixels[test_rows], labels[test_rows]))
