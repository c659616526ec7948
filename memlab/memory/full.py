"""The definition: all M keys are encoded and read at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from memlab import functional
from memlab.functional import ClassRead
from memlab.out_of_memory import OutOfMemoryError
from memlab.similarity import Similarity
from memlab.stored_keys import StoredKeys
from memlab.support import Support


class FullMemory(nn.Module):
    """The definition: all M keys are encoded and read at once.

    Memory grows with M times the activations of one object, plus a few (B, M) matrices.

    Args:
        similarity: scores keys for queries.
    """

    def __init__(self, *, similarity: Similarity) -> None:
        super().__init__()
        self.similarity = similarity

    def prepare(self, *, embedding_size: int, num_classes: int) -> None:
        """Make parameters of the memory's own, if it has any, before training.

        Args:
            embedding_size: D.
            num_classes: C.
        """

    def forward(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> Tensor:
        """(B, C) class scores alone, of what `read` gives."""
        return self.read(encoder, query, support, exclude).class_scores

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the support.

        Args:
            encoder: f, of objects to (m, D) keys.
            query: (B, D) encoded queries.
            support: the M objects to read.
            exclude: (B,) id of the object that each query must not read, or None to read all.

        Returns:
            class scores and lowest scores in float32 or wider; see `memlab.functional.ClassRead`.
        """
        scores = self.score(encoder, query, support, slice(None), exclude)
        return functional.read(scores, support.labels, support.num_classes)

    needs_whole_support = False
    """Whether it reads the whole training set and nothing less."""

    @property
    def sizes(self) -> dict[str, int | None]:
        """Sizes in use, to be told with the results."""
        return {}

    def shrink(self) -> None:
        """Take less memory from now on, after it has run out in a step.

        Raises:
            OutOfMemoryError: always; there is nothing to make smaller.
        """
        raise OutOfMemoryError(
            "memory=full: out of memory in a training step; memory=chunked gives the same at the memory of one chunk"
        )

    def after_step(self) -> dict[str, Tensor | float]:
        """Take note that a training step is over, the optimizer's included; figures about it, to be logged."""
        return {}

    def stored(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """The keys that are read in evaluation.

        Args:
            encode: encodes the whole training set, which is what is read here.
        """
        return encode()

    def state(self) -> dict[str, Any]:
        """Tensors and numbers, besides parameters, that training needs to go on as if it had not been interrupted."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the `state` of a memory of any mode; what this one has no use for is let go."""

    def score(self, encoder: nn.Module, query: Tensor, support: Support, part: slice, exclude: Tensor | None) -> Tensor:
        """(B, m) scores of a part of the support, encoded now."""
        scores: Tensor = self.similarity(query, encoder(support.inputs(part)))
        return scores if exclude is None else functional.exclude_rows(scores, support.ids[part], exclude)
