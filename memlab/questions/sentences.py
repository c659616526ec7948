"""Sentences as vectors: bags of words, with or without the places of the words."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.checks import check_choice
from memlab.data.vocabulary import PADDING

ENCODINGS = ("bag", "position")


def sentence_vectors(embeddings: Tensor, words: Tensor, *, encoding: str) -> Tensor:
    """The sum of the vectors of the words of each sentence, ``sum_j l_j * x_j``.

    For a bag l is 1. Position encoding has ``l_kj = (1 - j/J) - (k/d) (1 - 2 j/J)``, with places j of J words and
    features k of d counted from 1 (Sukhbaatar et al. 2015, section 4.1): two weighted sums of words, put together.

    Args:
        embeddings: (E, V, d) vectors of words, in E matrices.
        words: (U, J) words, padded with `memlab.data.vocabulary.PADDING`, which adds nothing.
        encoding: ``bag`` or ``position``.

    Returns:
        (U, E, d).

    Raises:
        ValueError: for another encoding.

    >>> vectors = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [4.0, 4.0]]])
    >>> sentence_vectors(vectors, torch.tensor([[1, 2]]), encoding="position")
    tensor([[[2.5000, 4.5000]]])
    """
    there = (words != PADDING).to(embeddings.dtype)
    if check_choice("encoding", encoding, ENCODINGS) == "bag":
        return _summed(embeddings, words, there)
    size = embeddings.shape[2]
    place = torch.arange(1, words.shape[1] + 1, device=words.device) / there.sum(1, keepdim=True).clamp(min=1)
    feature = torch.arange(1, size + 1, device=words.device, dtype=embeddings.dtype) / size
    ending = _summed(embeddings, words, (2 * place - 1) * there)
    return _summed(embeddings, words, (1 - place) * there) + feature * ending


def _summed(embeddings: Tensor, words: Tensor, weights: Tensor) -> Tensor:
    table = embeddings.transpose(0, 1).flatten(1)
    summed: Tensor = torch.nn.functional.embedding_bag(words, table, mode="sum", per_sample_weights=weights)
    return summed.view(len(words), len(embeddings), -1)
