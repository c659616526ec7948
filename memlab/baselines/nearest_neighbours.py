"""k nearest neighbours by Euclidean distance, majority vote; scikit-learn's, exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from memlab.baselines.baseline import Baseline
from memlab.checks import check_whole_number

Rows = NDArray[np.float32]


class PixelKNN(Baseline):
    """k nearest neighbours among raw inputs.

    Args:
        k: neighbours that vote.

    Raises:
        ValueError: if k is not a whole number of at least 1.
    """

    def __init__(self, *, k: int) -> None:
        self.k = check_whole_number("k", k)

    @property
    def title(self) -> str:
        """See `Baseline.title`."""
        return f"kNN on raw inputs, k = {self.k}"

    def check_fit(self, *, train_size: int, shape: Any) -> None:
        """See `Baseline.check_fit`."""
        if not self.of_embeddings and not (isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)):
            raise ValueError(
                f"objects of shape {shape}: must be one array each, of one size, for neighbours among raw inputs"
            )
        if self.k > train_size:
            raise ValueError(f"k={self.k}: must be at most {train_size}, the size of the training set")

    def predict(self, train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
        """See `Baseline.predict`."""
        train_rows, test_rows = self._features(train.flatten(1).float().numpy(), test.flatten(1).float().numpy())
        classifier = KNeighborsClassifier(n_neighbors=self.k, algorithm="brute").fit(train_rows, labels.numpy())
        return torch.from_numpy(classifier.predict(test_rows))

    def _features(self, train: Rows, test: Rows) -> tuple[Rows, Rows]:
        return train, test


class PCAKNN(PixelKNN):
    """k nearest neighbours among the first principal components of the raw training inputs.

    Args:
        k: neighbours that vote.
        components: how many.

    Raises:
        ValueError: if a number is not whole or below 1.
    """

    def __init__(self, *, k: int, components: int) -> None:
        super().__init__(k=k)
        self.components = check_whole_number("components", components)

    @property
    def title(self) -> str:
        """See `Baseline.title`."""
        return f"kNN on {self.components} principal components, k = {self.k}"

    def check_fit(self, *, train_size: int, shape: Any) -> None:
        """See `Baseline.check_fit`."""
        super().check_fit(train_size=train_size, shape=shape)
        most = min(train_size, int(np.prod(shape)))
        if self.components > most:
            raise ValueError(f"components={self.components}: must be at most {most}, what the training set has")

    def _features(self, train: Rows, test: Rows) -> tuple[Rows, Rows]:
        pca = PCA(self.components, random_state=0).fit(train)
        return pca.transform(train), pca.transform(test)


class EmbeddingKNN(PixelKNN):
    """k nearest neighbours among embeddings: the trained encoder with an equal vote in place of the softmax.

    It is given points that are as near as the similarity says; see `memlab.memory.similarity.Similarity.points`.

    Args:
        k: neighbours that vote.

    Raises:
        ValueError: if k is not a whole number of at least 1.
    """

    of_embeddings = True

    @property
    def title(self) -> str:
        """See `Baseline.title`."""
        return f"kNN on the learned embedding, k = {self.k}"
