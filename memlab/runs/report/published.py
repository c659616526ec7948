"""Figures that others have published, in percent of the test objects."""

from __future__ import annotations

from typing import NamedTuple

TABLE_1 = {
    ("knn_tangent", "mnist"): 98.90,
    ("knn_pca", "cifar10"): 41.78,
    ("knn_pixels", "cifar100"): 7.6,
    ("linear", "mnist"): 97.76,
    ("linear", "cifar10"): 38.55,
    ("linear", "cifar100"): 19.85,
    ("conv", "mnist"): 98.87,
    ("conv", "cifar10"): 62.69,
    ("conv", "cifar100"): 31.70,
}
"""Table 1 of the thesis: baseline or encoder, and data set, to accuracy. The convolutional encoder has M = 10,000."""

TABLE_1_SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
"""Data sets of Table 1, and how it names them."""

ROWS = {
    "kNN": {"mnist": "knn_tangent", "cifar10": "knn_pca", "cifar100": "knn_pixels"},
    "memory, linear": dict.fromkeys(("mnist", "cifar10", "cifar100"), "linear"),
    "memory, 1 conv": dict.fromkeys(("mnist", "cifar10", "cifar100"), "conv"),
}
"""The rows of Table 1: by data set, the baseline or the encoder that stands there."""

OBJECT_MEMORIES = ("full", "chunked", "topk")
"""Memories that read objects, as the thesis's does."""


class Relative(NamedTuple):
    """A published method that is near to ours."""

    method: str
    accuracy: float


_NEURALSORT = "NeuralSort kNN (Grover et al. 2019)"
RELATIVES = {
    ("conv", "mnist"): Relative(f"{_NEURALSORT}, conv net", 99.5),
    ("lenet", "mnist"): Relative(f"{_NEURALSORT}, conv net", 99.5),
    ("resnet_small", "mnist"): Relative(f"{_NEURALSORT}, conv net", 99.5),
    ("resnet", "mnist"): Relative(f"{_NEURALSORT}, conv net", 99.5),
    ("conv", "cifar10"): Relative("small conv net, beside NeuralSort", 66.4),
    ("lenet", "cifar10"): Relative("small conv net, beside NeuralSort", 66.4),
    ("resnet_small", "cifar10"): Relative(f"{_NEURALSORT}, ResNet-18", 90.7),
    ("resnet", "cifar10"): Relative(f"{_NEURALSORT}, ResNet-18", 90.7),
}
"""The best published relative by encoder and data set."""
