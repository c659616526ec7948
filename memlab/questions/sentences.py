"""Sentences as vectors: bags of words, with or without the places of the words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memlab.checks import check_choice
from memlab.data.vocabulary import PADDING

ENCODINGS = ("bag", "position", "centred")


def sentence_vectors(embeddings: Tensor, words: Tensor, *, encoding: str, longest: int) -> Tensor:
    """The sum of the vectors of the words of each sentence, ``sum_j l_j * x_j``.

    For a bag l is 1. Otherwise it tells places j, of J words, and features k, of d, both counted from 1:

    - ``position``: ``l_kj = (1 - j/J) - (k/d) (1 - 2 j/J)`` with the J words of the sentence itself (Sukhbaatar et al.
      2015, section 4.1);
    - ``centred``: ``l_kj = 1 + 4 (k - (d + 1) / 2) (j - (J + 1) / 2) / (d J)`` with the J words of the longest one, as
      the code of that paper has it.

    Either is two weighted sums of words, put together.

    Args:
        embeddings: (E, V, d) vectors of words, in E matrices.
        words: (U, J) words, padded with `memlab.data.vocabulary.PADDING`, which adds nothing.
        encoding: ``bag``, ``position`` or ``centred``.
        longest: J of ``centred``.

    Returns:
        (U, E, d).

    Raises:
        ValueError: for another encoding.

    >>> vectors = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [4.0, 4.0]]])
    >>> sentence_vectors(vectors, torch.tensor([[1, 2]]), encoding="position", longest=2)
    tensor([[[2.5000, 4.5000]]])
    >>> sentence_vectors(vectors, torch.tensor([[1, 2]]), encoding="centred", longest=2)
    tensor([[[4.2500, 5.7500]]])
    """
    there = (words != PADDING).to(embeddings.dtype)
    if check_choice("encoding", encoding, ENCODINGS) == "bag":
        return _summed(embeddings, words, there)
    size = embeddings.shape[2]
    counted: dict[str, Any] = {"device": words.device, "dtype": embeddings.dtype}
    place, feature = torch.arange(1, words.shape[1] + 1, **counted), torch.arange(1, size + 1, **counted) / size
    if encoding == "centred":
        of_place, of_feature = _from_the_middle(place, longest), _from_the_middle(feature * size, size)
        return _summed(embeddings, words, there) + 4 * of_feature * _summed(embeddings, words, of_place * there)
    share = place / there.sum(1, keepdim=True).clamp(min=1)
    ending = _summed(embeddings, words, (2 * share - 1) * there)
    return _summed(embeddings, words, (1 - share) * there) + feature * ending


def centred_weights(longest: int, size: int) -> Tensor:
    """(J, d) l of ``centred``, see `sentence_vectors`, for J places and d features.

    >>> centred_weights(2, 2)
    tensor([[1.2500, 0.7500],
            [0.7500, 1.2500]])
    """
    places, features = (_from_the_middle(torch.arange(1, each + 1), each) for each in (longest, size))
    return 1 + 4 * places[:, None] * features


def _from_the_middle(places: Tensor, count: int) -> Tensor:
    """How far places, counted from 1, are from the middle of so many, as a share of these."""
    return (places - (count + 1) / 2) / count


def _summed(embeddings: Tensor, words: Tensor, weights: Tensor) -> Tensor:
    table = embeddings.transpose(0, 1).flatten(1)
    summed: Tensor = torch.nn.functional.embedding_bag(words, table, mode="sum", per_sample_weights=weights)
    return summed.view(len(words), len(embeddings), -1)
