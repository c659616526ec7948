"""Parts of a model as plain JSON, ``{"class": name, "arguments": {...}}``, and back, of the classes listed here alone.

A name that is not listed is not imported: a folder from somebody else runs no code of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from memlab.trained.refusal import RefusedMemoryError

Recipe = Mapping[str, Any]
"""A class by name, and what to make it with: numbers, words, lists and recipes."""

ENCODERS = (
    "memlab.encoders.Bag",
    "memlab.encoders.Conv",
    "memlab.encoders.Elman",
    "memlab.encoders.FCN",
    "memlab.encoders.GRU",
    "memlab.encoders.Jordan",
    "memlab.encoders.LSTM",
    "memlab.encoders.LeNet",
    "memlab.encoders.Linear",
    "memlab.encoders.MLP",
    "memlab.encoders.PeepholeLSTM",
    "memlab.encoders.ResNet",
    "memlab.encoders.TableEncoder",
    "memlab.encoders.TextConv",
    "memlab.encoders.TorchvisionBackbone",
    "memlab.encoders.Transformer",
    "torch.nn.Flatten",
)
SIMILARITIES = tuple(f"memlab.memory.similarity.{name}" for name in ("Cosine", "Distance", "Dot", "Euclidean"))
READINGS = ("memlab.memory.reading.ReadAll", "memlab.memory.reading.ReadTopK")
INDEXES = ("memlab.index.ExactIndex", "memlab.index.HNSWIndex", "memlab.index.IVFIndex")
NETWORKS = tuple(f"memlab.questions.{name}" for name in ("ItemNetwork", "LSTMReader", "MemN2N", "MemNN"))
FIXED: Mapping[str, Mapping[str, Any]] = {"memlab.encoders.TorchvisionBackbone": {"pretrained": False}}
"""Arguments that hold whatever a recipe says: weights come from the folder, and nothing is downloaded."""


def recipe_of(target: str, arguments: Mapping[str, Any]) -> Recipe:
    """The recipe of a part; a class that is listed goes by the name that it has here.

    Args:
        target: full name of the class, from wherever it can be imported.
        arguments: what it is made with, plain values and recipes.

    >>> recipe_of("memlab.index.exact.ExactIndex", {})
    {'class': 'memlab.index.ExactIndex', 'arguments': {}}
    """
    kind = _imported(target)
    listed = (name for name in (*ENCODERS, *SIMILARITIES, *READINGS, *INDEXES, *NETWORKS) if _imported(name) is kind)
    return {"class": next(listed, target), "arguments": dict(arguments)}


def build(recipe: object, allowed: tuple[str, ...], *, name: str) -> Any:
    """Make a part from its recipe.

    Args:
        recipe: as it was read.
        allowed: names of the classes that it may be of.
        name: what the part is, for the message.

    Raises:
        RefusedMemoryError: for a class that is not allowed, or arguments that it refuses.
    """
    if not isinstance(recipe, dict) or not isinstance(recipe.get("arguments"), dict):
        raise RefusedMemoryError(f"{name}: is described in no known way")
    kind, arguments = recipe.get("class"), recipe["arguments"]
    if not isinstance(kind, str) or kind not in allowed:
        raise RefusedMemoryError(f"{name}: is of the class {kind}; must be one of {', '.join(allowed)}")
    made = {
        key: build(value, INDEXES, name=f"{name}.{key}") if isinstance(value, dict) else value
        for key, value in arguments.items()
    }
    try:
        return _imported(kind)(**{**made, **FIXED.get(kind, {})})
    except RefusedMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise RefusedMemoryError(f"{name}: {kind} cannot be made so ({why})") from error


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)
