"""Sentences as vectors: bags of words, with or without the places of the words."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.checks import check_choice
from memlab.data.vocabulary import PADDING

ENCODINGS = ("bag", "position")


def position_weights(length: Tensor, longest: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Position encoding ``l_kj = (1 - j/J) - (k/d) (1 - 2 j/J)`` (Sukhbaatar et al. 2015, section 4.1).

    Args:
        length: (U,) J, words of each sentence.
        longest: of all.
        size: d.
        dtype: of l.

    Returns:
        (U, longest, d) l, with j and k counted from 1; beyond the end of a sentence it means nothing.

    >>> position_weights(torch.tensor([2]), longest=2, size=2)
    tensor([[[0.5000, 0.5000],
             [0.5000, 1.0000]]])
    """
    place = torch.arange(1, longest + 1, device=length.device, dtype=dtype)[None, :, None]
    place = place / length.clamp(min=1)[:, None, None]
    feature = torch.arange(1, size + 1, device=length.device, dtype=dtype) / size
    return (1 - place) - feature * (1 - 2 * place)


def sentence_vectors(embedding: Tensor, words: Tensor, *, encoding: str) -> Tensor:
    """The sum of the vectors of the words of each sentence, ``sum_j l_j * x_j``; l is 1 for a bag.

    Args:
        embedding: (V, d) vectors of words.
        words: (U, J) words, padded with `memlab.data.vocabulary.PADDING`, which adds nothing.
        encoding: ``bag`` or ``position``; see `position_weights`.

    Returns:
        (U, d).

    Raises:
        ValueError: for another encoding.
    """
    vectors = torch.nn.functional.embedding(words, embedding)
    there = words != PADDING
    if check_choice("encoding", encoding, ENCODINGS) == "position":
        longest, size = vectors.shape[1:]
        vectors = vectors * position_weights(there.sum(1), longest, size, vectors.dtype)
    return (vectors * there[:, :, None]).sum(1)
