"""Checks of arguments: one line that names the parameter, the value given and what is allowed.

A part names its own parameters, `parameters_of` puts the name of the part before them.

Numbers and switches may be numpy's as well as Python's; what is returned is Python's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import inf
from numbers import Integral, Real


def check_whole_number(name: str, value: object, *, minimum: int = 1, or_else: str | None = None) -> int:
    """Return ``value`` if it is a whole number of at least ``minimum``.

    Args:
        name: the parameter.
        value: what was given.
        minimum: the least allowed.
        or_else: a word that the caller allows too, for the message.

    Raises:
        ValueError: if it is of another type (a bool, a float, a string) or too small.

    >>> check_whole_number("chunk_size", 256)
    256
    >>> check_whole_number("chunk_size", 1.5)
    Traceback (most recent call last):
    ...
    ValueError: chunk_size=1.5: must be a whole number of at least 1
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        also = f", or {or_else}" if or_else else ""
        raise ValueError(f"{name}={value}: must be a whole number of at least {minimum}{also}")
    return int(value)


def check_number(name: str, value: object, *, above: float = -inf, at_least: float = -inf, below: float = inf) -> float:
    """Return ``value`` as a float if it is a number within the limits.

    Args:
        name: the parameter.
        value: what was given.
        above: it must be larger.
        at_least: it must be as large.
        below: it must be smaller.

    Raises:
        ValueError: if it is not a number, not finite, or out of range.

    >>> check_number("scale", 0.5, above=0)
    0.5
    >>> check_number("dropout", 1, at_least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: dropout=1: must be a number of at least 0 and below 1
    >>> check_number("scale", "big", above=0)
    Traceback (most recent call last):
    ...
    ValueError: scale=big: must be a number above 0
    """
    number = not isinstance(value, bool) and isinstance(value, Real)
    if not (number and above < value < below and value >= at_least):  # type: ignore[operator]
        limits = [(above, "above"), (at_least, "of at least"), (below, "below")]
        rule = " and ".join(f"{word} {limit:g}" for limit, word in limits if abs(limit) != inf)
        raise ValueError(f"{name}={value}: must be a number {rule}")
    return float(value)  # type: ignore[arg-type]


def check_choice(name: str, value: object, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of ``allowed``.

    >>> check_choice("location", "disk", ["device", "host"])
    Traceback (most recent call last):
    ...
    ValueError: location=disk: must be one of device, host
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value}: must be one of {', '.join(allowed)}")
    return value


def check_switch(name: str, value: object) -> bool:
    """Return ``value`` if it is true or false.

    >>> check_switch("learn_scale", "maybe")
    Traceback (most recent call last):
    ...
    ValueError: learn_scale=maybe: must be true or false
    """
    # By name: to import numpy would cost every start a fifth of a second.
    of_numpy = type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")
    if not (isinstance(value, bool) or of_numpy):
        raise ValueError(f"{name}={value}: must be true or false")
    return bool(value)


@contextmanager
def parameters_of(part: str) -> Iterator[None]:
    """Within this context a `ValueError` about a parameter tells whose it is.

    >>> with parameters_of("support"):
    ...     raise ValueError("size=0: must be a whole number of at least 1")
    Traceback (most recent call last):
    ...
    ValueError: support.size=0: must be a whole number of at least 1
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}.{error}") from error
