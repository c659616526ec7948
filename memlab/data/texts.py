"""Texts as tokens, words or characters: those of the training texts have numbers, and all others one together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memlab.checks import check_choice, check_whole_number
from memlab.data.sequences import Sequences
from memlab.data.vocabulary import FIRST, UNKNOWN, Vocabulary

KINDS = ("words", "characters")
WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
SHOWN = 80
"""Characters of a text that are shown where it is one of many."""


@dataclass(frozen=True)
class Texts:
    """How texts become sequences of tokens, learned from some and applied to others.

    Args:
        tokens: what a text is cut into, ``words``, in small letters and with what is between them, or ``characters``.
        vocabulary: tokens with a number of their own.
        longest: tokens of a text that are read, the first.
        column: where tables and lines of JSON have had the texts.
        target: and where their classes.

    >>> texts = Texts.of(["The milk.", "The apple."], tokens="words", rare_below=1, most_tokens=9, longest=4)
    >>> [texts.text(row) for row in texts.encoded(["the MILK is there.", ""]).taken(torch.tensor([0, 1]))]
    ['the milk … …', '…']
    """

    tokens: str
    vocabulary: Vocabulary
    longest: int
    column: str = "text"
    target: str = "label"

    @classmethod
    def of(
        cls, texts: Iterable[str], *, tokens: str, rare_below: int, most_tokens: int, longest: int, **names: str
    ) -> Texts:
        """By the tokens of training texts.

        Args:
            texts: of training.
            tokens: what a text is cut into.
            rare_below: tokens in fewer texts have no number of their own.
            most_tokens: that have one, those in most texts; of those in as many the first by the alphabet.
            longest: tokens of a text that are read.
            names: ``column`` and ``target``, see above.

        Raises:
            ValueError: for a value out of range, or if no token is left.
        """
        check_choice("tokens", tokens, KINDS)
        check_whole_number("rare_below", rare_below)
        check_whole_number("most_tokens", most_tokens)
        check_whole_number("longest", longest)
        counts = Counter(token for text in texts for token in set(split(text, tokens)))
        kept = [token for token, count in counts.items() if count >= rare_below]
        kept = sorted(kept, key=lambda each: (-counts[each], each))[:most_tokens]
        if not kept:
            raise ValueError(f"rare_below={rare_below}: leaves none of {len(counts):,} {tokens}; must be smaller")
        return cls(tokens, Vocabulary(tuple(sorted(kept))), longest, **names)

    def encoded(self, texts: Iterable[str]) -> Sequences:
        """(N, T, 1) numbers of tokens, in float32; a text without any is one token that is not known."""
        rows = [self.numbers(text)[: self.longest] or [UNKNOWN] for text in texts]
        numbers = torch.tensor([number for row in rows for number in row], dtype=torch.float32)
        return Sequences(numbers[:, None], torch.tensor([len(row) for row in rows], dtype=torch.int64))

    def numbers(self, text: str) -> list[int]:
        """Of all tokens of a text."""
        return self.vocabulary.numbers(split(text, self.tokens))

    def text(self, row: Tensor) -> str:
        """What (T, 1) numbers say, with … for a token that is not known; what is behind the end is left out."""
        numbers = [int(number) for number in row.flatten().tolist() if number == number]
        known = ["…" if number < FIRST else self.vocabulary.words[number - FIRST] for number in numbers]
        return (" " if self.tokens == "words" else "").join(known)

    def described(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {**vars(self), "vocabulary": list(self.vocabulary.words)}

    @classmethod
    def from_described(cls, described: Mapping[str, Any]) -> Texts:
        """What `described` gave.

        Raises:
            KeyError, TypeError, ValueError: for anything else.
        """
        made = cls(**{**described, "vocabulary": Vocabulary(tuple(described["vocabulary"]))})
        check_choice("tokens", made.tokens, KINDS)
        check_whole_number("longest", made.longest)
        if not all(isinstance(each, str) for each in (made.column, made.target, *made.vocabulary.words)):
            raise ValueError("names and tokens must be words")
        return made


def split(text: str, tokens: str) -> list[str]:
    """The tokens of a text.

    >>> split("Where's the milk?", "words"), split("Hm ?", "characters")
    (["where's", 'the', 'milk', '?'], ['H', 'm', ' ', '?'])
    """
    return WORD.findall(text.lower()) if tokens == "words" else list(text)


def quoted(text: str) -> str:
    """A text on one line, and not all of it if it is long.

    >>> quoted("to be   or not to be")
    '"to be or not to be"'
    """
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= SHOWN else f'"{line[: SHOWN - 1]}…"'


def not_known(texts: Texts, given: Sequence[str]) -> list[str]:
    """What is to be said of texts of which no token is known, as they are answered by how long they are at most."""
    empty = [text for text in given if all(number == UNKNOWN for number in texts.numbers(text))]
    if not empty:
        return []
    many = f"{len(empty):,} texts, as {quoted(empty[0])}, have" if len(empty) > 1 else f"{quoted(empty[0])} has"
    return [f"{many} no {texts.tokens} that training has seen"]


def told_coverage(texts: Texts, parts: Mapping[str, Sequence[str]]) -> list[str]:
    """What is to be said of some texts, a line for each part: lengths, what is cut off, empty or not known.

    Args:
        texts: how they are read.
        parts: by name.
    """
    lines = []
    for name, given in parts.items():
        numbers = [texts.numbers(text) for text in given]
        lengths = [len(each) for each in numbers]
        total = max(sum(lengths), 1)
        facts = [f"{len(given):,} texts of {total / max(len(given), 1):.1f} {texts.tokens}"]
        facts.append(f"{sum(number == UNKNOWN for each in numbers for number in each) / total:.1%} not known")
        if cut := sum(length > texts.longest for length in lengths):
            facts.append(f"{cut:,} cut off behind {texts.longest:,}")
        if empty := lengths.count(0):
            facts.append(f"{empty:,} empty")
        lines.append(f"{name}: {', '.join(facts)}")
    return lines
