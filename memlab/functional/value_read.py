"""The value read: what queries have read of vectors that support objects hold (eqs. 6-9).

`value_read` is the definition. `ValueSums` and `value_read_gradient` are the same part by part, as
`memlab.functional.class_read` has it for the class read, so that nothing of size (B, M) needs to be held.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlab.functional.class_read import power_


class Values(NamedTuple):
    """What support objects hold to be read: ``v_bi = v_i``, and ``relu(a_b - c_i)`` if there are places."""

    shared: Tensor
    """(M, D) v_i, the same for all queries; (B, K, D) where every query has read objects of its own."""
    places: Tensor | None = None
    """(M, H) or (B, K, H) c_i; None for no differences."""

    def of(self, objects: slice | Tensor) -> Values:
        """Those of some objects: (m, D) of neighbours, (B, K, D) of the places (B, K) of objects."""
        return Values(self.shared[objects], None if self.places is None else self.places[objects])

    def to(self, dtype: torch.dtype) -> Values:
        """The same in another type."""
        return Values(self.shared.to(dtype), None if self.places is None else self.places.to(dtype))


class ValueRead(NamedTuple):
    """What queries have read of values: 0 where a query has read nothing."""

    shared: Tensor
    """(B, D) ``sum_i p_bi v_i``."""
    differences: Tensor | None
    """(B, H) ``sum_i p_bi relu(a_b - c_i)``; None for values without places."""
    total: Tensor
    """(B,) ``log sum_i exp(z_bi)``: ``p_bi = exp(z_bi - total_b)``; minus infinity where a query has read nothing."""


def value_read(scores: Tensor, values: Values, origins: Tensor | None = None) -> ValueRead:
    """Read values: ``o_b = sum_i p_bi v_bi`` with ``p_b = softmax(z_b)`` (eq. 8).

    Differentiable in all by autograd, in memory of the scores and, with places, of B M H numbers.

    Args:
        scores: (B, M) scores, (B, K) where every query has read objects of its own; minus infinity for objects not to
            be read.
        values: of the objects.
        origins: (B, H) a_b, for values with places.

    >>> scores = torch.tensor([[0.0, 0.0, -torch.inf]])
    >>> value_read(scores, Values(torch.tensor([[1.0, 2.0], [3.0, 0.0], [9.0, 9.0]]))).shared
    tensor([[2., 1.]])
    >>> value_read(scores, Values(torch.zeros(3, 2), torch.tensor([[0.0], [3.0], [0.0]])), torch.ones(1, 1)).differences
    tensor([[0.5000]])
    """
    nothing = scores.isneginf().all(-1, keepdim=True)
    finite = scores.masked_fill(nothing, 0)
    weights = finite.softmax(-1).masked_fill(nothing, 0)
    shared = weights @ values.shared if values.shared.dim() == 2 else _mean(weights, values.shared)
    total = finite.logsumexp(-1).masked_fill(nothing[:, 0], -torch.inf)
    if values.places is None:
        return ValueRead(shared, None, total)
    assert origins is not None
    return ValueRead(shared, _mean(weights, (origins[:, None] - values.places).relu()), total)


def _mean(weights: Tensor, vectors: Tensor) -> Tensor:
    """(B, D) ``sum_i p_bi x_bi`` from (B, M) and (B, M, D)."""
    return (weights[:, None] @ vectors)[:, 0]


def merged_value_reads(parts: ValueRead) -> ValueRead:
    """What is read of all parts of a support: ``t_b = log sum_r exp(t_rb)`` and ``o_b = sum_r exp(t_rb - t_b) o_rb``.

    Args:
        parts: (W, B, D), (W, B, H) and (W, B), what is read of each.

    >>> parts = ValueRead(torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]]), None, torch.zeros(2, 1))
    >>> merged_value_reads(parts).shared
    tensor([[2., 1.]])
    """
    total = parts.total.logsumexp(0)
    weights = value_read_shares(parts.total, total)[..., None]
    differences = None if parts.differences is None else (weights * parts.differences).sum(0)
    return ValueRead((weights * parts.shared).sum(0), differences, total)


def value_read_shares(of_part: Tensor, total: Tensor) -> Tensor:
    """``exp(t_rb - t_b)``, what a part weighs in the read of the whole; 0 where nothing is read."""
    return (of_part - total.clamp(min=torch.finfo(total.dtype).min)).exp()  # minus infinity less itself would be NaN


class ValueSums:
    """Sums of values so far, weighted by ``base ** (z_bi - maximum_b)``: the running state of a read part by part.

    Args:
        values: of some part, for their sizes, type and device.
        queries: B.
        base: of the exponentials, e or 2: scores are in nats or in bits.
    """

    def __init__(self, values: Values, *, queries: int, base: float = math.e) -> None:
        like = values.shared
        self.base = base
        self.maximum = like.new_full((queries,), torch.finfo(like.dtype).min)
        self.total = like.new_zeros(queries)
        self.shared = like.new_zeros(queries, like.shape[1])
        self.differences = None if values.places is None else like.new_zeros(queries, values.places.shape[1])

    def add(self, scores: Tensor, values: Values, origins: Tensor | None = None, *, spare: Tensor) -> None:
        """Read one more part of the support.

        Args:
            scores: (B, m) scores of the part.
            values: of its m objects.
            origins: (B, H) for values with places.
            spare: (m, B) memory to work in.
        """
        by_row = scores.mT
        maximum = torch.maximum(self.maximum, by_row.amax(0))
        before = power_(self.base, self.maximum - maximum)
        weights = power_(self.base, torch.sub(by_row, maximum, out=spare))
        self.maximum = maximum
        self.total.mul_(before).add_(weights.sum(0))
        self.shared.mul_(before[:, None]).addmm_(weights.mT, values.shared)
        if self.differences is not None:
            read = torch.einsum("mb,mbh->bh", weights, _differences(values, origins))
            self.differences.mul_(before[:, None]).add_(read)

    def read(self) -> ValueRead:
        """What all parts give together."""
        nothing = (self.total == 0)[:, None]
        total = self.total[:, None].masked_fill(nothing, 1)
        differences = None if self.differences is None else self.differences / total
        logs = self.total.log2() * math.log(2) + self.maximum * math.log(self.base)
        return ValueRead(self.shared / total, differences, logs)


class ValueReadGradient(NamedTuple):
    """Gradients that a part of the support contributes to and has."""

    scores: Tensor
    """(B, m) of its scores in nats."""
    shared: Tensor
    """(m, D) of its values."""
    places: Tensor | None
    """(m, H) of its places."""
    origins: Tensor | None
    """(B, H) its share of that of the origins."""


def value_read_gradient(
    scores: Tensor,
    values: Values,
    origins: Tensor | None,
    read: ValueRead,
    of_shared: Tensor,
    of_differences: Tensor | None,
    of_total: Tensor,
    *,
    base: float = math.e,
    spare: Tensor,
) -> ValueReadGradient:
    """Gradients through a part of the support, given what was read of the whole.

    With ``g_b`` the gradient of ``o_b`` and ``h_b`` that of the total: ``dL/dv_bi = p_bi g_b`` and
    ``dL/dz_bi = p_bi (g_b . (v_bi - o_b) + h_b)``.

    Args:
        scores: (B, m) scores of the part, to the base.
        values: of its m objects.
        origins: (B, H) for values with places.
        read: what was read of the whole support.
        of_shared: (B, D) gradient of ``read.shared``.
        of_differences: (B, H) gradient of ``read.differences``.
        of_total: (B,) gradient of ``read.total``.
        base: of the exponentials.
        spare: (m, B) memory to work in.
    """
    finite = (read.total / math.log(base)).clamp(min=torch.finfo(scores.dtype).min)
    weights = power_(base, torch.sub(scores.mT, finite, out=spare))  # (m, B)
    heights = values.shared @ of_shared.mT
    mean = (of_shared * read.shared).sum(-1) - of_total
    places = of_origins = None
    if values.places is not None:
        assert of_differences is not None
        assert read.differences is not None
        differences = _differences(values, origins)
        heights += (differences * of_differences).sum(-1)
        mean = mean + (of_differences * read.differences).sum(-1)
        passed = (differences > 0) * weights[:, :, None] * of_differences
        places, of_origins = -passed.sum(1), passed.sum(0)
    shared = weights @ of_shared
    return ValueReadGradient(weights.mul_(heights.sub_(mean)).mT, shared, places, of_origins)


def _differences(values: Values, origins: Tensor | None) -> Tensor:
    """(m, B, H) ``relu(a_b - c_i)``."""
    assert values.places is not None
    assert origins is not None
    return (origins - values.places[:, None]).relu_()
