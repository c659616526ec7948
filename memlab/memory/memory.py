"""What all memories do: read a support in training, and say which keys are read in evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from memlab.data.support import Support
from memlab.functional import ClassRead, OwnRead, own_read
from memlab.memory.hops import Hops
from memlab.memory.similarity import Similarity
from memlab.memory.stored_keys import StoredKeys


class Memory(nn.Module):
    """Maps encoded queries and a support to class scores (B, C), whose log_softmax is the log class mass (eq. 13).

    Gradients reach the encoder through the queries and through the keys.

    Args:
        similarity: scores keys for queries.
        hops: what queries take up before the class is read; None for nothing.

    Raises:
        ValueError: for hops of a memory that has none.
    """

    has_hops = False
    """Whether it can have hops."""
    needs_whole_support = False
    """Whether it reads the whole training set and nothing less."""
    encodes_as_it_finds = False
    """Whether one step encodes more of its support than another, as chance has it."""

    def __init__(self, *, similarity: Similarity, hops: Hops | None = None) -> None:
        super().__init__()
        self.similarity = similarity
        if hops is not None and not self.has_hops:
            raise ValueError(
                f"hops={hops.number}: must be 0 with {type(self).__name__}; full, chunked and topk have hops"
            )
        self.hops = hops

    @property
    def alone(self) -> Memory:
        """Reads by itself what this reads, maybe as one of several processes."""
        return self

    def prepare(self, *, embedding_size: int, num_classes: int) -> None:
        """Make parameters of the memory's own, if it has any, before training.

        Args:
            embedding_size: D.
            num_classes: C.
        """
        if self.hops is not None:
            self.hops.prepare(embedding_size=embedding_size, num_classes=num_classes)

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
        raise NotImplementedError

    def read_own(
        self, encoder: nn.Module, query: Tensor, support: Support, targets: Tensor, exclude: Tensor | None = None
    ) -> OwnRead:
        """Read the support for the loss alone.

        Args:
            encoder: f, of objects to (m, D) keys.
            query: (B, D) encoded queries.
            support: the M objects to read.
            targets: (B,) true class ids of the queries.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        return self._own(self.read(encoder, query, support, exclude), targets)

    def _own(self, read: ClassRead, targets: Tensor) -> OwnRead:
        """What concerns the true classes; the farthest object stays at its place when the scale is learned."""
        return own_read(read.class_scores, targets, self.similarity.rescaled(read.lowest))

    @property
    def sizes(self) -> dict[str, int | None]:
        """Sizes in use, to be told with the results."""
        return {}

    def shrink(self) -> None:
        """Take less memory from now on, after it has run out in a step.

        Raises:
            OutOfMemoryError: if there is nothing to make smaller.
        """
        raise NotImplementedError

    def encoded_with_graph(self, *, support: int, queries: int) -> tuple[int, int]:
        """How many objects a step encodes with gradient at most, and how many of them at a time.

        Args:
            support: M.
            queries: B.
        """
        return support, support

    def kept_graphs(self, *, parts: int, graph_bytes: float, free: int) -> int:
        """How many parts of a support keep their graph for the backward, besides the one under way.

        Args:
            parts: that a support has.
            graph_bytes: of the graph of one.
            free: bytes that can be had.
        """
        return 0

    def held_bytes(self, *, support: int, embedding_size: int) -> int:
        """What it holds of a support from step to step, besides parameters.

        Args:
            support: M.
            embedding_size: D.
        """
        return 0

    def read_bytes(self, *, support: int, embedding_size: int) -> int:
        """What a step holds of a support in all, besides what it holds of one part.

        Args:
            support: M.
            embedding_size: D.
        """
        return 0

    def small(self, *, objects: int, at_once: int) -> Memory:
        """A copy to try a step with, of a support of so few objects, so many of which are encoded at a time."""
        return copy.deepcopy(self)

    def after_step(self) -> dict[str, Tensor | float]:
        """Take note that a training step is over, the optimizer's included; figures about it, to be logged."""
        return {}

    def stored_keys(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """The keys that are read in evaluation.

        Args:
            encode: encodes the whole training set, which is what most memories read.
        """
        return encode()

    def recall(self, query: Tensor, keys: Tensor, ids: Tensor) -> Tensor | None:
        """Share of the nearest among fresh keys that training would have found.

        Args:
            query: (B, D) encoded queries, none of them in the memory.
            keys: (M, D) all keys as they are now.
            ids: (M,) which object each is.

        Returns:
            a scalar; None for a memory that does not search, or has nothing to search yet.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Tensors and numbers, besides parameters, that training needs to go on as if it had not been interrupted."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the `state` of a memory of any mode; what this one has no use for is let go."""
