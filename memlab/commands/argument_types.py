"""Types of arguments: a word, or several with commas between; one line that tells the rule if one does not fit."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import Any


def list_of(convert: Callable[[str], Any], rule: str) -> Callable[[str], Any]:
    """Words with commas between, each converted.

    Args:
        convert: raises `ValueError` for a word that does not fit.
        rule: what each must be.
    """

    def parse(text: str) -> list[Any]:
        try:
            return [convert(word.strip()) for word in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: must be {rule}, with commas between") from None

    return parse


def single(convert: Callable[[str], Any], rule: str) -> Callable[[str], Any]:
    """One word, converted; see `list_of`."""

    def parse(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: must be {rule}") from None

    return parse


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """Converts a word that is one of these."""

    def convert(word: str) -> str:
        if word not in names:
            raise ValueError(word)
        return word

    return convert


def between(kind: type[int] | type[float], least: float, below: float) -> Callable[[str], Any]:
    """Converts a number within these limits."""

    def convert(word: str) -> float:
        value = kind(word)
        if not least <= value < below:
            raise ValueError(word)
        return value

    return convert
