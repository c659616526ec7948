"""Vectors of words from a file in the text format of GloVe or of word2vec."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlab.data.columns import shown
from memlab.data.vocabulary import FIRST
from memlab.files import in_utf8

NAMED = 10
"""Words without a vector that are named."""


@dataclass(frozen=True)
class WordVectors:
    """Vectors of some of the words of a vocabulary.

    Args:
        words: of the vocabulary, in its order.
        rows: (V, D) one for each number of `memlab.data.vocabulary`; 0 where there is none.
        found: (V,) which numbers have one.
    """

    words: tuple[str, ...]
    rows: Tensor
    found: Tensor

    @property
    def size(self) -> int:
        """D."""
        return self.rows.shape[1]

    def told(self, path: str, counts: Tensor) -> str:
        """What is to be said of the words that have a vector, in a line.

        Args:
            path: of the file.
            counts: (V,) how often the training texts have each.
        """
        known = counts.clone()
        known[:FIRST] = 0
        share = float(known[self.found].sum() / known.sum().clamp(min=1))
        line = (
            f"{path}: {int(self.found.sum()):,} of {len(self.words):,} words, {share:.1%} of what training texts say,"
            f" have a vector of {self.size} numbers there"
        )
        lacking = known.masked_fill(self.found, 0)
        named = [
            self.words[place - FIRST]
            for place in lacking.argsort(descending=True, stable=True)[:NAMED].tolist()
            if lacking[place]
        ]
        return f"{line}; others start at 0, as {', '.join(map(shown, named))}" if named else line


def read_word_vectors(path: Path, words: Sequence[str]) -> WordVectors:
    """The vectors that a file has of some words.

    On each line a word and its numbers, with spaces between; word2vec has a line before them with how many words and
    numbers there are. The file may be gzipped. A word that the file has in capitals alone has the vector of the first
    of these.

    Args:
        path: the file.
        words: of a vocabulary.

    Raises:
        ValueError: for what is not there, cannot be read or is no such file, or has none of the words; in one line that
            begins with the path.
    """
    name = in_utf8(path)
    places = {word: FIRST + place for place, word in enumerate(words)}
    exact: dict[int, NDArray[np.float32]] = {}
    alike: dict[int, NDArray[np.float32]] = {}
    size = None
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(cast(BinaryIO, file), start=1):
                fields = line.split()
                if not fields or (number == 1 and len(fields) == 2 and all(map(bytes.isdigit, fields))):
                    continue
                size = len(fields) - 1 if size is None else size
                word = fields[0].decode(errors="replace")
                place = places.get(word, places.get(word.lower()))
                found = exact if word in places else alike
                if place is not None and place not in found and len(fields) <= size + 1:  # more are of several words
                    found[place] = _numbers(fields[1:], size, f"{name}: line {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not size:
        raise ValueError(f"{name}: has no vectors; must have a word and its numbers on each line, with spaces between")
    vectors = alike | exact
    if not vectors:
        raise ValueError(f"{name}: has none of the {len(words):,} words of the training texts, as {words[0]}")
    rows = torch.zeros(FIRST + len(words), size)
    has = torch.zeros(len(rows), dtype=torch.bool)
    for place, vector in vectors.items():
        rows[place], has[place] = torch.from_numpy(vector), True
    return WordVectors(tuple(words), rows, has)


def _numbers(fields: Sequence[bytes], size: int, place: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # told below
            vector = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError as error:
        wrong = str(error).rpartition(": ")[2].removeprefix("b")
        raise ValueError(f"{place} has {shown(wrong)}; must be a number") from error
    if len(vector) != size or not np.isfinite(vector).all():
        what = f"{len(vector)} numbers" if len(vector) != size else "numbers that are not finite"
        raise ValueError(f"{place} has {what}; must have {size} finite ones, as the first")
    return vector
