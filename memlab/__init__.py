"""Differentiable nearest-neighbour classification.

An encoder is trained end to end so that attention over a memory of labelled examples gives the class. Importing
``memlab`` is light: torch, Lightning and Hydra come in only with what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memlab.estimator import MemoryClassifier as MemoryClassifier
    from memlab.trained import load as load

__version__ = "0.1.0"

OFFERED = {"load": "memlab.trained", "MemoryClassifier": "memlab.estimator"}
"""What is had from here, and where it is."""


def __getattr__(name: str) -> Any:
    if name in OFFERED:
        return getattr(import_module(OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
