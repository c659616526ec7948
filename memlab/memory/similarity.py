"""How alike a query and a key are: dot product, cosine or Euclidean distance, each with a scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_number, check_switch
from memlab.functional import dot_scores


class Similarity(nn.Module):
    """``z_bi = scale a(u_b) . b(m_i)``: each similarity is one matrix product of terms a and b of queries and keys.

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
            return self.scale * self._of_queries(_less(_wide(query), centre))

    def key_terms(self, keys: Tensor, centre: Tensor | None) -> Tensor:
        """``b(m)``: (M, D') from (M, D) encoded support objects, in float32 or wider; see `centre`."""
        with torch.autocast(keys.device.type, enabled=False):
            return self._of_keys(_less(_wide(keys), centre))

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

    def _of_queries(self, query: Tensor) -> Tensor:
        return query

    def _of_keys(self, keys: Tensor) -> Tensor:
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
            return dot_scores(query_terms.to(dtype), key_terms.to(dtype))


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

    def _of_queries(self, query: Tensor) -> Tensor:
        return F.normalize(query, dim=-1)

    def _of_keys(self, keys: Tensor) -> Tensor:
        return F.normalize(keys, dim=-1)


class Euclidean(Similarity):
    """``-scale |u - m|^2``, the score of Neighbourhood Components Analysis (Goldberger et al. 2004, eq. 1).

    As one product: ``(2 u, -|u|^2, -1) . (m, 1, |m|^2)``, of u and m less the mean of the queries, or of the keys if
    they are at hand. That changes no distance, but in float32 the squares of embeddings far from 0 would leave nothing
    of the distances between them.
    """

    metric = "L2"

    def centre(self, embeddings: Tensor) -> Tensor:
        """Their mean, without gradient; see `Similarity.centre`."""
        return _wide(embeddings.detach()).mean(0)

    def _of_queries(self, query: Tensor) -> Tensor:
        return torch.cat([2 * query, -query.square().sum(-1, keepdim=True), -torch.ones_like(query[:, :1])], dim=-1)

    def _of_keys(self, keys: Tensor) -> Tensor:
        return torch.cat([keys, torch.ones_like(keys[:, :1]), keys.square().sum(-1, keepdim=True)], dim=-1)


def _less(embeddings: Tensor, centre: Tensor | None) -> Tensor:
    return embeddings if centre is None else embeddings - centre


def _wide(embeddings: Tensor) -> Tensor:
    # Dot products reach hundreds: in bf16 they would be whole numbers at best, and the softmax noise.
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
