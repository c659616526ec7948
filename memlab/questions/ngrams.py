"""Texts as bags of n-grams: a number for each word, and for each run of words one of a fixed number of places."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.data.vocabulary import UNKNOWN

BUCKETS = 4096
"""Numbers for the runs of each length; the bAbI tasks have some 500 pairs and 1,000 triples of words."""
MULTIPLIER, PRIME = 739_982_445, 2**31 - 1
"""Of the hash, word after word: ``h' = MULTIPLIER (h + word) mod PRIME``, its upper bits mixed into the lower."""


def ngram_count(words: int, longest: int) -> int:
    """How many numbers `ngram_numbers` gives out, of so many words and runs of up to so many."""
    return words + (longest - 1) * BUCKETS


def ngram_numbers(texts: Tensor, *, words: int, longest: int) -> Tensor:
    """The runs of 1 to n words of each text.

    Words keep their numbers, longer runs are hashed into `BUCKETS` numbers for each length (Weinberger et al. 2009).
    Nothing is known of an unknown word, nor of a run that has one: they count as padding.

    Args:
        texts: (U, J) numbers of words, padded.
        words: V, numbers of words.
        longest: n.

    Returns:
        (U, J + (J - 1) + ...), below `ngram_count`; `memlab.data.vocabulary.PADDING` for none.

    >>> ngram_numbers(torch.tensor([[2, 3, 0], [2, 1, 3]]), words=4, longest=2)
    tensor([[   2,    3,    0, 1149,    0],
            [   2,    0,    3,    0,    0]])
    """
    found = []
    for length in range(1, min(longest, texts.shape[1]) + 1):
        runs = texts.unfold(1, length, 1)
        known = (runs > UNKNOWN).all(2)
        found.append(torch.where(known, _number(runs, words), 0))
    return torch.cat(found, dim=1)


def _number(runs: Tensor, words: int) -> Tensor:
    """(U, m) of (U, m, length)."""
    length = runs.shape[2]
    if length == 1:
        return runs[:, :, 0]
    hashed = torch.zeros_like(runs[:, :, 0])
    for place in range(length):
        hashed = (hashed + runs[:, :, place]) * MULTIPLIER % PRIME
        hashed = hashed ^ (hashed >> 15)
    return words + (length - 2) * BUCKETS + hashed % BUCKETS
