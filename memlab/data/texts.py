"""Texts as tokens: those of the training texts have numbers, and all others one together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memlab.checks import check_whole_number
from memlab.data.sequences import Sequences
from memlab.data.tokens import Tokens
from memlab.data.vocabulary import FIRST, UNKNOWN, Vocabulary

SHOWN = 200
"""Characters of a text that are shown where it is one of many."""
BETWEEN = " / "
"""What is shown between the texts of a pair."""

Text = str | Sequence[str]
"""A text, or the two of a pair."""


@dataclass(frozen=True)
class Texts:
    """How texts become sequences of tokens, learned from some and applied to others.

    Args:
        tokens: what a text is cut into.
        vocabulary: tokens with a number of their own.
        longest: tokens of a text that are read, the first.
        columns: where tables and lines of JSON have had the texts; two columns, where objects are pairs.
        target: and where their classes.

    Of a pair, what separates the two has the number behind all others.

    >>> texts = Texts.of(["The milk.", "The apple."], tokens=Tokens("words"), rare_below=1, most_tokens=9, longest=4)
    >>> [texts.text(row) for row in texts.encoded(["the MILK is there.", ""]).taken(torch.tensor([0, 1]))]
    ['the milk … …', '…']
    """

    tokens: Tokens
    vocabulary: Vocabulary
    longest: int
    columns: tuple[str, ...] = ("text",)
    target: str = "label"

    @classmethod
    def of(
        cls, texts: Iterable[Text], *, tokens: Tokens, rare_below: int, most_tokens: int, longest: int, **names: Any
    ) -> Texts:
        """By the tokens of training texts.

        Args:
            texts: of training.
            tokens: what a text is cut into.
            rare_below: tokens in fewer texts have no number of their own.
            most_tokens: that have one, those in most texts; of those in as many the first by the alphabet.
            longest: tokens of a text that are read.
            names: ``columns`` and ``target``, see above.

        Raises:
            ValueError: for a value out of range, or if no token is left.
        """
        check_whole_number("rare_below", rare_below)
        check_whole_number("most_tokens", most_tokens)
        check_whole_number("longest", longest)
        counts = Counter(token for text in texts for part in parts_of(text) for token in set(tokens.split(part)))
        kept = [token for token, count in counts.items() if count >= rare_below]
        kept = sorted(kept, key=lambda each: (-counts[each], each))[:most_tokens]
        if not kept:
            raise ValueError(f"rare_below={rare_below}: leaves none of {len(counts):,} {tokens.kind}; must be smaller")
        return cls(tokens, Vocabulary(tuple(sorted(kept))), longest, **names)

    @property
    def separator(self) -> int | None:
        """Number of what separates the texts of a pair; None where objects are no pairs."""
        return len(self.vocabulary) if len(self.columns) > 1 else None

    def encoded(self, texts: Iterable[Text]) -> Sequences:
        """(N, T, 1) numbers of tokens, in float32; a text without any is one token that is not known.

        Raises:
            ValueError: for a text where there must be a pair, or the other way round.
        """
        rows = []
        for place, text in enumerate(texts):
            first, *second = parts_of(text)
            if len(second) != len(self.columns) - 1:
                raise ValueError(f"inputs[{place}]: is {quoted(text)}; must be {self.wanted}")
            row = self._read(first)
            for other in second:
                row = [*row, len(self.vocabulary), *self._read(other)]
            rows.append(row)
        numbers = torch.tensor([number for row in rows for number in row], dtype=torch.float32)
        return Sequences(numbers[:, None], torch.tensor([len(row) for row in rows], dtype=torch.int64))

    @property
    def wanted(self) -> str:
        """What an object is, in words."""
        return "a text" if self.separator is None else "a pair of texts"

    def numbers(self, text: Text) -> list[int]:
        """Of all tokens of a text, or of both of a pair."""
        return [number for part in parts_of(text) for number in self.vocabulary.numbers(self.tokens.split(part))]

    def _read(self, text: str) -> list[int]:
        return self.numbers(text)[: self.longest] or [UNKNOWN]

    def text(self, row: Tensor) -> str:
        """What (T, 1) numbers say, with … for a token that is not known; what is behind the end is left out."""
        texts: list[list[str | None]] = [[]]
        for number in (int(number) for number in row.flatten().tolist() if number == number):
            if number == self.separator:
                texts.append([])
            else:
                texts[-1].append(None if number < FIRST else self.vocabulary.words[number - FIRST])
        return BETWEEN.join(map(self.tokens.joined, texts))

    def described(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        tokenizer = {} if self.tokens.tokenizer is None else {"tokenizer": self.tokens.tokenizer}
        return {
            "tokens": self.tokens.kind,
            **tokenizer,
            "vocabulary": list(self.vocabulary.words),
            "longest": self.longest,
            "columns": list(self.columns),
            "target": self.target,
        }

    @classmethod
    def from_described(cls, described: Mapping[str, Any]) -> Texts:
        """What `described` gave.

        Raises:
            KeyError, TypeError, ValueError: for anything else.
        """
        described = dict(described)
        tokens = Tokens(described.pop("tokens"), described.pop("tokenizer", None))
        tokens.check()
        vocabulary, columns = Vocabulary(tuple(described["vocabulary"])), tuple(described["columns"])
        made = cls(**{**described, "tokens": tokens, "vocabulary": vocabulary, "columns": columns})
        check_whole_number("longest", made.longest)
        if len(columns) not in (1, 2) or not all(
            isinstance(each, str) for each in (*columns, made.target, *vocabulary.words)
        ):
            raise ValueError("names and tokens must be words, and columns one or two")
        return made


def parts_of(text: Text) -> list[str]:
    """A text alone, or both of a pair."""
    return [text] if isinstance(text, str) else list(text)


def quoted(text: Text) -> str:
    """A text on one line, and not all of it if it is long.

    >>> quoted("to be   or not to be")
    '"to be or not to be"'
    >>> quoted(["to be", "or not"])
    '"to be" / "or not"'
    """
    lines = [" ".join(part.split()) for part in parts_of(text)]
    return BETWEEN.join(f'"{line}"' if len(line) <= SHOWN else f'"{line[: SHOWN - 1]}…"' for line in lines)


def not_known(texts: Texts, given: Sequence[Text]) -> list[str]:
    """What is to be said of texts of which no token is known, as they are answered by how long they are at most."""
    empty = [text for text in given if all(number == UNKNOWN for number in texts.numbers(text))]
    if not empty:
        return []
    many = f"{len(empty):,} texts, as {quoted(empty[0])}, have" if len(empty) > 1 else f"{quoted(empty[0])} has"
    return [f"{many} no {texts.tokens.kind} that training has seen"]


def told_coverage(texts: Texts, parts: Mapping[str, Sequence[Text]]) -> list[str]:
    """What is to be said of some texts, a line for each part: lengths, what is cut off, empty or not known.

    Args:
        texts: how they are read.
        parts: by name.
    """
    lines = []
    for name, given in parts.items():
        numbers = [texts.numbers(part) for text in given for part in parts_of(text)]
        lengths = [len(each) for each in numbers]
        total = max(sum(lengths), 1)
        facts = [f"{len(numbers):,} texts of {total / max(len(numbers), 1):.1f} {texts.tokens.kind}"]
        facts.append(f"{sum(number == UNKNOWN for each in numbers for number in each) / total:.1%} not known")
        if cut := sum(length > texts.longest for length in lengths):
            facts.append(f"{cut:,} cut off behind {texts.longest:,}")
        if empty := lengths.count(0):
            facts.append(f"{empty:,} empty")
        lines.append(f"{name}: {', '.join(facts)}")
    return lines
