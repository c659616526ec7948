"""How alike a query and a key are: dot product, cosine or Euclidean distance, squared or not, each with a scale."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_number, check_switch
from memlab.functional import dot_scores, root_scores


class Similarity(nn.Module):
    """``z_bi = scale a(u_b) . b(m_i)``: each similarity is one matrix product of terms a and b of queries and keys.

    Or minus the root of minus that product; see `is_root`.

    The scale is part of the queries' terms, so that no second pass over the (B, M) matrix is needed. It is an inverse
    temperature: large, and the nearest object decides alone; small, and many vote.

    Args:
        scale: the scale, or its value at the start if it is learned; above 0.
        learn_scale: train the logarithm of the scale together with the encoder.

    Raises:
        ValueError: for a scale that is not a positive number.
    """

    def __init__(self, *, scale: float = 1.0, learn_scale: bool = False) -> None:
        super().__init__()
        check_number("scale", scale, above=0)
        self.fixed_scale = float(scale)
        if check_switch("learn_scale", learn_scale):
            self.log_scale: nn.Parameter | None = nn.Parameter(torch.tensor(math.log(scale)))
        else:
            self.register_parameter("log_scale", None)

    @property
    def scale(self) -> Tensor | float:
        """The scale in use: a tensor with gradient if it is learned."""
        return self.fixed_scale if self.log_scale is None else self.log_scale.exp()

    @property
    def bound(self) -> float | None:
        """Largest size of a score in nats; None if there is no such limit, or a GPU would have to be waited for."""
        return None

    is_root = False
    """Whether scores are ``-sqrt(-t)`` of the products t of terms, and not t; see `memlab.functional.root_scores`."""

    def rescaled(self, scores: Tensor) -> Tensor:
        """Scores as they are, with the gradient of the scale alone: ``z = scale s`` with a constant s.

        For what stands at a certain place whatever the encoder does; see `memlab.functional.nll`.
        """
        if self.log_scale is None:
            return scores
        finite = scores.isfinite()
        moved = scores.masked_fill(~finite, 0) * (self.log_scale - self.log_scale.detach()).exp()
        return torch.where(finite, moved, scores)

    def centre(self, embeddings: Tensor) -> Tensor | None:
        """(D,) what to subtract from queries and keys alike, the same in all chunks of a read; None for nothing.

        Args:
            embeddings: (m, D) queries or keys that are to be near it.
        """
        return None

    def query_terms(self, query: Tensor, centre: Tensor | None) -> Tensor:
        """``scale a(u)``: (B, D') from (B, D) encoded queries, in float32 or wider; see `centre`."""
        with torch.autocast(query.device.type, enabled=False):
            return self.scale * self._of_queries(_wide(query), centre)

    def key_terms(self, keys: Tensor, centre: Tensor | None) -> Tensor:
        """``b(m)``: (M, D') from (M, D) encoded support objects, in float32 or wider; see `centre`."""
        with torch.autocast(keys.device.type, enabled=False):
            return self._of_keys(_wide(keys), centre)

    metric = "inner product"
    """By what an index finds the highest scores among `search_vectors`; see `memlab.index`."""

    def search_vectors(self, embeddings: Tensor) -> Tensor:
        """(m, D) what an index compares, of queries and keys alike: the nearest key has the highest score."""
        return _wide(embeddings)

    def points(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D') and (M, D') points of queries and keys: the nearest by Euclidean distance has the highest score.

        Inner products have one coordinate more (Bachrach et al. 2014, theorem 1): ``(u, 0)`` and
        ``(m, sqrt(r^2 - |m|^2))``, r the length of the longest key, are ``|u|^2 + r^2 - 2 u . m`` apart, squared.
        """
        query, keys = self.search_vectors(query), self.search_vectors(keys)
        if self.metric == "L2":
            return query, keys
        squares = keys.square().sum(-1, keepdim=True)
        height = (squares.max() - squares).sqrt()
        return torch.cat([query, torch.zeros_like(query[:, :1])], dim=-1), torch.cat([keys, height], dim=-1)

    def _of_queries(self, query: Tensor, centre: Tensor | None) -> Tensor:
        return query

    def _of_keys(self, keys: Tensor, centre: Tensor | None) -> Tensor:
        return keys

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every key for every query.

        Args:
            query: (B, D) encoded queries.
            keys: (M, D) encoded support objects.

        Returns:
            (B, M) scores in float32, or float64 if either input is.
        """
        centre = self.centre(query)
        query_terms, key_terms = self.query_terms(query, centre), self.key_terms(keys, centre)
        dtype = torch.promote_types(query_terms.dtype, key_terms.dtype)
        with torch.autocast(query.device.type, enabled=False):
            products = dot_scores(query_terms.to(dtype), key_terms.to(dtype))
            return root_scores(products) if self.is_root else products


class Dot(Similarity):
    """``scale u . m``, the thesis's similarity (eq. 13) at scale 1."""


class Cosine(Similarity):
    """``scale u . m / (|u| |m|)``, from -scale to scale; a vector of length 0 has score 0."""

    @property
    def bound(self) -> float | None:
        """See `Similarity.bound`."""
        if self.log_scale is None:
            return self.fixed_scale
        return self.log_scale.detach().exp().item() if self.log_scale.device.type == "cpu" else None

    def search_vectors(self, embeddings: Tensor) -> Tensor:
        """See `Similarity.search_vectors`."""
        return F.normalize(_wide(embeddings), dim=-1)

    def _of_queries(self, query: Tensor, centre: Tensor | None) -> Tensor:
        units: Tensor = _UnitLength.apply(query)
        return units

    def _of_keys(self, keys: Tensor, centre: Tensor | None) -> Tensor:
        return self._of_queries(keys, centre)


class Euclidean(Similarity):
    """``-scale |u - m|^2``, the score of Neighbourhood Components Analysis (Goldberger et al. 2004, eq. 1).

    As one product: ``(2 u, -|u|^2, -1) . (m, 1, |m|^2)`` of u and m less the mean of the queries, or of the keys if
    they are at hand. That changes no distance, but in float32 the squares of embeddings far from 0 would leave nothing
    of the distances between them.
    """

    metric = "L2"

    def centre(self, embeddings: Tensor) -> Tensor:
        """Their mean, without gradient; 0 of none. See `Similarity.centre`."""
        embeddings = _wide(embeddings.detach())
        return embeddings.mean(0) if len(embeddings) else embeddings.sum(0)

    def _of_queries(self, query: Tensor, centre: Tensor | None) -> Tensor:
        terms: Tensor = _WithSquare.apply(query, centre, True)
        factors = terms.new_full((terms.shape[1],), 2.0)
        factors[-2:] = -1
        return factors * terms

    def _of_keys(self, keys: Tensor, centre: Tensor | None) -> Tensor:
        terms: Tensor = _WithSquare.apply(keys, centre, False)
        return terms


class Distance(Euclidean):
    """``-scale |u - m|``, the score of ModernNCA (Ye et al. 2025, section 4.1): its distances are not squared.

    Far objects weigh more than by the square, and an object is pulled as strongly from afar as from close by. The
    products of terms are minus the squares of the scores. Where two embeddings are equal there is no gradient between
    them, as of `torch.cdist`; where they are nearly equal their distance is known to ``1e-3 |u|`` in float32.
    """

    is_root = True

    def query_terms(self, query: Tensor, centre: Tensor | None) -> Tensor:
        """``scale^2 a(u)``; see `Similarity.query_terms`."""
        return self.scale * super().query_terms(query, centre)


class _UnitLength(torch.autograd.Function):
    """``x / |x|``, and 0 for 0; its gradient is ``(g - (g . y) y) / |x|`` with the result y.

    As `torch.nn.functional.normalize`, whose backward goes over the vectors twice as often.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_(min=1e-12)
        units: Tensor = vectors / lengths
        ctx.save_for_backward(units, lengths)
        return units

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        units, lengths = ctx.saved_tensors
        along = (gradient * units).sum(-1, keepdim=True)
        return torch.addcmul(gradient, units, along, value=-1).div_(lengths)


class _WithSquare(torch.autograd.Function):
    """``(x, |x|^2, 1)`` or ``(x, 1, |x|^2)`` of x less a centre, going over the vectors as seldom as can be.

    The gradient of x is ``g_x + 2 x g_s`` with the gradients of its place and of its square.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, centre: Tensor | None, square_first: bool) -> Tensor:
        size = vectors.shape[1]
        terms = vectors.new_empty(len(vectors), size + 2)
        places = terms[:, :size]
        if centre is None:
            places.copy_(vectors)
        else:
            torch.sub(vectors, centre, out=places)
        ctx.square = size if square_first else size + 1
        terms[:, size:] = 1
        terms[:, ctx.square] = torch.linalg.vector_norm(places, dim=1).square_()
        ctx.save_for_backward(terms)
        return terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (terms,) = ctx.saved_tensors
        places, of_places = (each[:, :-2] for each in (terms, gradient))
        return torch.addcmul(of_places, places, gradient[:, ctx.square, None], value=2), None, None


def _wide(embeddings: Tensor) -> Tensor:
    # Dot products reach hundreds: in bf16 they would be whole numbers at best, and the softmax noise.
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
