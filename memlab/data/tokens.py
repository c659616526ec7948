"""How a text is cut into tokens: words, characters, or what a tokenizer file of the ``tokenizers`` library makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from memlab.data.columns import shown
from memlab.files import in_utf8

KINDS = ("words", "characters")
OF_A_FILE = "tokens"
"""What those of a tokenizer file are called."""
WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
NOT_KNOWN = "…"
INSTALL = 'pip install "memlab[tokenizers]"'


@dataclass(frozen=True)
class Tokens:
    """How texts are cut, and what was cut is put together again to be shown.

    Args:
        kind: ``words``, in small letters and with what is between them, ``characters``, or ``tokens`` of a tokenizer.
        tokenizer: what its file says, JSON; None for the others.

    >>> Tokens("words").split("Where's the milk?"), Tokens("characters").split("Hm ?")
    (["where's", 'the', 'milk', '?'], ['H', 'm', ' ', '?'])
    >>> Tokens("words").joined(["the", None, "?"]), Tokens("characters").joined(["H", None])
    ('the … ?', 'H…')
    """

    kind: str
    tokenizer: str | None = None

    @classmethod
    def of(cls, given: str) -> Tokens:
        """By name, or by the file of a tokenizer.

        Raises:
            ValueError: for another word, or a file that is none; it begins with what was given.
        """
        if given in KINDS:
            return cls(given)
        path, name = Path(given), in_utf8(given)
        if path.suffix != ".json":
            raise ValueError(f"{name}: must be {', '.join(KINDS)}, or the .json file of a tokenizer")
        try:
            made = cls(OF_A_FILE, path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: is not UTF-8 at byte {error.start:,}; must be a tokenizer") from error
        try:
            made.check()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return made

    def check(self) -> None:
        """See that texts can be cut so.

        Raises:
            ValueError: for a kind that there is not, a tokenizer that cannot be read, or without the package that does.
        """
        if self.tokenizer is None:
            if self.kind not in KINDS:
                raise ValueError(f"tokens={shown(self.kind)}: must be one of {', '.join(KINDS)}")
            return
        try:
            _ = self._tokenizer
        except ImportError as error:
            raise ValueError(f"needs a package that is not there ({error.name}): {INSTALL}") from error
        except Exception as error:  # the library raises nothing finer
            raise ValueError(f"is no tokenizer of the tokenizers library ({shown(error)})") from error

    def split(self, text: str) -> list[str]:
        """The tokens of a text, without those that a tokenizer puts before and behind it."""
        if self.tokenizer is not None:
            found: list[str] = self._tokenizer.encode(text, add_special_tokens=False).tokens
            return found
        return WORD.findall(text.lower()) if self.kind == "words" else list(text)

    def joined(self, tokens: Iterable[str | None]) -> str:
        """What tokens say; None for one that is not known."""
        if self.tokenizer is None:
            return (" " if self.kind == "words" else "").join(NOT_KNOWN if each is None else each for each in tokens)
        return " ".join(self._runs(tokens))

    def _runs(self, tokens: Iterable[str | None]) -> Iterator[str]:
        for known, run in groupby(tokens, lambda token: token is not None):
            given: Sequence[Any] = list(run)
            if not known:
                yield " ".join(len(given) * [NOT_KNOWN])
            elif self._tokenizer.decoder is None:
                yield " ".join(given)
            else:
                yield self._tokenizer.decoder.decode(given).strip()

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        assert self.tokenizer is not None
        made = Tokenizer.from_str(self.tokenizer)
        made.no_truncation()
        made.no_padding()
        return made
