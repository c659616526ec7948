"""Words as numbers: those of the training texts, and one number for all others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

PADDING, UNKNOWN = 0, 1
FIRST = 2
"""Number of the first word."""


@dataclass(frozen=True)
class Vocabulary:
    """Words in order, numbered from `FIRST` on.

    Args:
        words: each once.

    >>> Vocabulary.of([["where", "is", "mary"], ["mary", "moved"]]).numbers(["is", "mary", "here"])
    [2, 3, 1]
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> Vocabulary:
        """Of the words of some texts, in the order of the alphabet."""
        return cls(tuple(sorted({word for text in texts for word in text})))

    def __len__(self) -> int:
        """How many numbers there are, those of padding and of unknown words included."""
        return FIRST + len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._number_of

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {word: FIRST + place for place, word in enumerate(self.words)}

    def numbers(self, text: Iterable[str]) -> list[int]:
        """The number of each word; `UNKNOWN` for one that is not among them."""
        return [self._number_of.get(word, UNKNOWN) for word in text]
