"""Values as the command line takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np


def word_of(value: object) -> str:
    """A value as the command line takes it.

    >>> word_of({"lr": np.float64(0.1), "at": (0.5, None), "name": "a b", "nesterov": True})
    "{lr:0.1,at:[0.5,null],name:'a b',nesterov:true}"
    """
    if value is None:
        return "null"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, np.generic):
        return word_of(value.item())
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{word_of(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return value if re.fullmatch(r"[\w./:+-]+", value) else f"'{escaped}'"
    if isinstance(value, Sequence | np.ndarray):
        return "[" + ",".join(map(word_of, value)) + "]"
    return str(value)
