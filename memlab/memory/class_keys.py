"""One key for each class in the place of one for each object: learned, or the mean of the class's objects.

They are what a memory of objects is to be compared with. There is no evidence in them, as no object is read by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from memlab.data.support import Support
from memlab.functional import ClassRead, lowest_scores, sums_by_class
from memlab.index import Places
from memlab.memory.memory import Memory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.similarity import Similarity
from memlab.memory.stored_keys import StoredKeys


class LinearMemory(Memory):
    """A softmax layer on the encoder: ``s_bc = z(u_b, w_c)`` with one learned key w_c for each class; nothing is read.

    With dot products these are the weights of a linear layer; a bias is in the encoder's own, as ``W (u + b)``. With
    the other similarities it is a softmax over cosines or over distances to learned centres.

    Args:
        similarity: scores class keys for queries.
    """

    class_keys: nn.Parameter
    """(C, D), uniform within 1 / sqrt(D) at the start, as of a linear layer."""

    def prepare(self, *, embedding_size: int, num_classes: int) -> None:
        """See `Memory.prepare`."""
        bound = 1 / math.sqrt(embedding_size)
        self.class_keys = nn.Parameter(torch.empty(num_classes, embedding_size).uniform_(-bound, bound))

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Score the classes; the support is left alone. See `Memory.read`."""
        scores: Tensor = self.similarity(query, self.class_keys)
        return ClassRead(scores, lowest_scores(scores))

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `Memory.sizes`."""
        return {"support": 0}

    def encoded_with_graph(self, *, support: int, queries: int) -> tuple[int, int]:
        """None; see `Memory.encoded_with_graph`."""
        return 0, 0

    def shrink(self) -> None:
        """See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a training step; needs a smaller batch")

    def stored_keys(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """The class keys; nothing is encoded. See `Memory.stored_keys`."""
        classes = torch.arange(len(self.class_keys), device=self.class_keys.device)
        return _of_classes(self.class_keys.detach(), classes, len(self.class_keys), self.similarity)


class PrototypeMemory(Memory):
    """Class means as keys: ``s_bc = z(u_b, mean of m_i with y_i = c)`` (prototypical networks, Snell et al. 2017).

    A class without objects has score minus infinity. A query whose own row is to be left out meets its class's mean
    without it. All M objects are encoded at once, as `FullMemory` does.

    Args:
        similarity: scores class means for queries.
    """

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Score the class means; see `Memory.read`."""
        scores = self._class_scores(encoder, query, support, exclude)
        return ClassRead(scores, lowest_scores(scores))

    def _class_scores(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None) -> Tensor:
        keys = ScoredSupport(encoder, self.similarity, support, exclude).keys(slice(None))
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        sums, counts = sums_by_class(keys, support.labels, support.num_classes)
        if exclude is None:
            return self.scores_of_means(query, sums, counts)
        own = Places(support.ids).of(exclude)
        near = own.clamp(min=0)
        return self.scores_without_own(query, sums, counts, own=keys[near], labels=support.labels[near], there=own >= 0)

    def scores_without_own(
        self, query: Tensor, sums: Tensor, counts: Tensor, *, own: Tensor, labels: Tensor, there: Tensor
    ) -> Tensor:
        """(B, C) scores of class means, of its class the mean without a query's own object.

        Args:
            query: (B, D).
            sums: (C, D) of the keys of each class.
            counts: (C,) how many there are.
            own: (B, D) key of each query's own object.
            labels: (B,) its class.
            there: (B,) whether it is in the support.
        """
        scores = self.scores_of_means(query, sums, counts)
        without = self.scores_of_means(query, sums[labels] - own, counts[labels] - 1).diagonal()
        with_it = scores.gather(1, labels[:, None])[:, 0]
        return scores.scatter(1, labels[:, None], torch.where(there, without, with_it)[:, None])

    def scores_of_means(self, query: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
        """(B, n) scores of n means for each query; minus infinity of nothing."""
        scores: Tensor = self.similarity(query, sums / counts.clamp(min=1)[:, None])
        return scores.masked_fill(counts == 0, -torch.inf)

    def shrink(self) -> None:
        """See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a training step; needs a smaller support or a smaller batch")

    def stored_keys(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """The means of the classes that have objects; see `Memory.stored_keys`."""
        objects = encode()
        sums, counts = sums_by_class(objects.keys, objects.labels, objects.num_classes)
        return means_of_classes(sums, counts, self.similarity)


def means_of_classes(sums: Tensor, counts: Tensor, similarity: Similarity) -> StoredKeys:
    """The means of the classes that have objects, from (C, D) sums of their keys and (C,) how many there are."""
    classes = counts.nonzero().flatten()
    return _of_classes(sums[classes] / counts[classes, None], classes, len(counts), similarity)


def _of_classes(keys: Tensor, classes: Tensor, num_classes: int, similarity: Similarity) -> StoredKeys:
    return StoredKeys(keys, classes, torch.full_like(classes, -1), num_classes, similarity)
