"""How alike a query and a key are: dot product, cosine or Euclidean distance, each with a scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.argument_checks import check_number, check_switch


class Similarity(nn.Module):
    """``z_bi = scale * raw_scores(u_b, m_i)``, computed in float32 or wider whatever the encoder's precision.

    The scale is an inverse temperature: large, and the nearest object decides alone; small, and many vote.

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

    def raw_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """(B, M) scores before the scale."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every key for every query.

        Args:
            query: (B, D) encoded queries.
            keys: (M, D) encoded support objects.

        Returns:
            (B, M) scores in float32, or float64 if either input is.
        """
        # Dot products reach hundreds: in bf16 they would be whole numbers at best, and the softmax noise.
        dtype = torch.promote_types(torch.promote_types(query.dtype, keys.dtype), torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            return self.scale * self.raw_scores(query.to(dtype), keys.to(dtype))


class Dot(Similarity):
    """``scale * u . m``, the thesis's similarity (eq. 13) at scale 1."""

    def raw_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `memlab.functional.dot_scores`."""
        return functional.dot_scores(query, keys)


class Cosine(Similarity):
    """``scale * u . m / (|u| |m|)``."""

    def raw_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `memlab.functional.cosine_scores`."""
        return functional.cosine_scores(query, keys)


class Euclidean(Similarity):
    """``-scale * |u - m|^2``, as in Neighbourhood Components Analysis."""

    def raw_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `memlab.functional.euclidean_scores`."""
        return functional.euclidean_scores(query, keys)
