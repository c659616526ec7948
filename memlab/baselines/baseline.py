"""What every baseline is: a classifier that is fitted in one go to the training objects."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Baseline:
    """A classifier to set beside a trained one."""

    of_embeddings = False
    """Whether it takes objects encoded by the trained encoder, in place of raw ones."""

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        raise NotImplementedError

    def check_fit(self, *, train_size: int, shape: Any) -> None:
        """See that it can be fitted.

        Args:
            train_size: objects of the training set.
            shape: of one object, or the tree of the shapes of its parts; None for the steps of sequences if some have
                more than others.

        Raises:
            ValueError: if there are too few objects, or not such as it takes.
        """

    def predict(self, train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
        """Class ids of the test objects.

        Args:
            train: (N, ...) training objects, raw or embedded, on the CPU.
            labels: (N,) their class ids.
            test: (T, ...) test objects.

        Returns:
            (T,) class ids.
        """
        raise NotImplementedError
