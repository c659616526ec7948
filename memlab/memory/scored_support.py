"""A support whose keys are made when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from memlab import draws, functional
from memlab.data.support import Support
from memlab.memory.similarity import Similarity


@dataclass
class ScoredSupport:
    """Scores for queries of a support that is encoded part by part, as often as it is asked for.

    Args:
        encoder: f, of objects to (m, D) keys.
        similarity: scores keys for queries.
        support: the M objects.
        exclude: (B,) id of the object that each query must not read, or None to read all.
    """

    encoder: nn.Module
    similarity: Similarity
    support: Support
    exclude: Tensor | None
    seed: int = field(default_factory=draws.seed_of_step, kw_only=True)
    """Of the step whose random numbers the objects meet, however often they are encoded."""

    def keys(self, part: slice) -> Tensor:
        """(m, D) keys of a part of the support, encoded now."""
        with draws.of_objects(self.support.ids[part], purpose=draws.ENCODED_SUPPORT, seed=self.seed):
            keys: Tensor = self.encoder(self.support.inputs(part))
            return keys

    def scores(self, query: Tensor, part: slice) -> Tensor:
        """(B, m) scores of a part of the support, encoded now; differentiable in query and `parameters`."""
        return self.scores_of(query, self.keys(part), part)

    def scores_of(self, query: Tensor, keys: Tensor, part: slice) -> Tensor:
        """(B, m) scores of (m, D) keys of a part of the support; minus infinity for the object that is left out."""
        scores: Tensor = self.similarity(query, keys)
        return scores if self.exclude is None else functional.exclude_rows(scores, self.support.ids[part], self.exclude)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that scores depend on besides the queries, and a gradient is wanted for."""
        modules = (self.encoder, self.similarity)
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
