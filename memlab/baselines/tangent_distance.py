"""k nearest neighbours by two-sided tangent distance: images compared up to small changes of pose and thickness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memlab.baselines.baseline import Baseline
from memlab.checks import check_number, check_whole_number
from memlab.index import ExactIndex

SEARCHED_AT_A_TIME = 100
"""Test images whose candidates are looked for together; distances are worked out one test image at a time, because
tangents take eight times the memory of the images."""


class TangentDistanceKNN(Baseline):
    """k nearest neighbours by two-sided tangent distance (Simard et al. 1993), majority vote.

    ``d^2(x, y) = min_{a, b} |x + Q_x a - y - Q_y b|^2 + stiffness (|a|^2 + |b|^2)``: each image may move in its tangent
    space, which the seven `tangents` span and Q is an orthonormal basis of. With r = x - y that is a least-squares
    problem of 14 unknowns,

    ``d^2 = |r|^2 - c^T G^-1 c,  c = [Q_x^T r; Q_y^T r],  G = [I, Q_x^T Q_y; Q_y^T Q_x, I] + stiffness I``.

    It is worked out for those training images that are nearest by Euclidean distance.

    Args:
        k: neighbours that vote; of equal votes that of the nearer neighbour wins.
        candidates: nearest training images that are compared with each test image.
        sigma: standard deviation, in pixels, of the Gaussian by which images are smoothed first.
        stiffness: how much moving costs, at least 1e-4, which keeps G invertible in float32 too.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, k: int, candidates: int, sigma: float, stiffness: float) -> None:
        self.k = check_whole_number("k", k)
        self.candidates = check_whole_number("candidates", candidates)
        self.sigma = check_number("sigma", sigma, above=0)
        self.stiffness = check_number("stiffness", stiffness, at_least=1e-4)
        if k > candidates:
            raise ValueError(f"k={k}: must be at most {candidates}, the candidates")

    @property
    def title(self) -> str:
        """See `Baseline.title`."""
        return f"kNN by tangent distance, k = {self.k}"

    def check_fit(self, *, train_size: int, shape: Any) -> None:
        """See `Baseline.check_fit`."""
        if not isinstance(shape, tuple) or len(shape) != 3:
            raise ValueError(f"objects of shape {shape}: must be images (channels, height, width) for tangent distance")
        if self.candidates > train_size:
            raise ValueError(
                f"candidates={self.candidates}: must be at most {train_size}, the size of the training set"
            )

    def predict(self, train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
        """Class ids of the test images; see `Baseline.predict`."""
        smooth_train, smooth_test = (smoothed(images.float(), self.sigma) for images in (train, test))
        index = ExactIndex()
        index.build(smooth_train.flatten(1), metric="L2")
        found = []
        for queries in smooth_test.split(SEARCHED_AT_A_TIME):
            near = index.search(queries.flatten(1), self.candidates)
            pairs = zip(queries.split(1), near, strict=True)
            distances = torch.cat([self.distances(query, smooth_train[places][None]) for query, places in pairs])
            order = distances.argsort(dim=1, stable=True)[:, : self.k]
            found.append(_vote(labels[near.gather(1, order)]))
        return torch.cat(found)

    def distances(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Squared tangent distances.

        Args:
            queries: (B, channels, height, width) smoothed images.
            candidates: (B, n, channels, height, width) smoothed images to compare each with.

        Returns:
            (B, n).
        """
        basis_x = _orthonormal(tangents(queries))[:, None]
        basis_y = _orthonormal(tangents(candidates.flatten(0, 1))).unflatten(0, candidates.shape[:2])
        residual = (queries[:, None] - candidates).flatten(2)[..., None]
        both = torch.cat([basis_x.expand_as(basis_y), basis_y], dim=-1)
        pulled = both.mT @ residual
        gram = both.mT @ both
        gram.diagonal(dim1=-2, dim2=-1).add_(self.stiffness)
        gained = (pulled * torch.linalg.solve(gram, pulled)).sum(dim=(-2, -1))
        squared: Tensor = residual.square().sum(dim=(-2, -1)) - gained
        return squared


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """(B, channels, height, width) images convolved with a Gaussian, zero beyond their border."""
    reach = max(round(3 * sigma), 1)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype)
    weights = (-places.square() / (2 * sigma**2)).exp()
    weights = weights / weights.sum()
    flat = images.flatten(0, 1)[:, None]
    across = F.conv2d(flat, weights.view(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(across, weights.view(1, 1, -1, 1), padding=(reach, 0))[:, 0].view_as(images)


def tangents(images: Tensor) -> Tensor:
    """(B, pixels, 7) how images change with small moves, by derivatives across (I_x) and down (I_y) the image.

    With coordinates x and y from the middle: shifts I_x and I_y, scaling ``x I_x + y I_y``, rotation
    ``y I_x - x I_y``, stretching along the axes ``x I_x - y I_y`` and the diagonals ``y I_x + x I_y``, and thickness
    ``I_x^2 + I_y^2`` (Simard et al. 1993, section 3).

    Args:
        images: (B, channels, height, width) smooth images.
    """
    down, across = torch.gradient(images, dim=(2, 3))
    height, width = images.shape[2:]
    y = (torch.arange(height, dtype=images.dtype) - (height - 1) / 2)[:, None]
    x = torch.arange(width, dtype=images.dtype) - (width - 1) / 2
    moves = [
        across,
        down,
        x * across + y * down,
        y * across - x * down,
        x * across - y * down,
        y * across + x * down,
        across.square() + down.square(),
    ]
    return torch.stack([move.flatten(1) for move in moves], dim=-1)


def _orthonormal(vectors: Tensor) -> Tensor:
    """Orthonormal columns that span what the columns (B, pixels, 7) span; of an empty image, any."""
    lengths = vectors.norm(dim=1, keepdim=True)
    basis: Tensor = torch.linalg.qr(vectors / torch.where(lengths > 0, lengths, 1.0)).Q
    return basis


def _vote(classes: Tensor) -> Tensor:
    """(B,) the most frequent of each row (B, k), nearest first; of equally frequent ones the first."""
    votes = (classes[:, :, None] == classes[:, None, :]).sum(dim=2)
    return classes.gather(1, votes.argmax(dim=1, keepdim=True))[:, 0]
