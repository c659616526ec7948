"""Parts of a run tried out on a few objects, so that what cannot work is told before anything is written.

No random state is touched, and no part is changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memlab.data.objects import ObjectStore
from memlab.data.support import Support
from memlab.functional import ClassRead
from memlab.memory import Memory
from memlab.memory.stored_keys import encoded_as_it_is, in_evaluation

QUERIES, OBJECTS = 4, 64


def try_augmentation(augmentation: Callable[[Any], Any], store: ObjectStore, rows: Tensor) -> None:
    """Change a few objects.

    Args:
        augmentation: the random change.
        store: the objects.
        rows: of the training set.

    Raises:
        ValueError: if it fails, or changes the shape or the type of the objects.
    """
    objects = store.take(rows[:QUERIES], dtype=torch.float32)
    given = _kind(objects)
    name = f"augmentation={_name(augmentation)}"
    made = _kind(_tried(lambda: augmentation(objects), store, name=name, hint="; choose another, or none"))
    if made != given:
        raise ValueError(f"{name}: makes {made} of {given}; must keep shape and type; choose another, or none")


def try_encoder(encoder: nn.Module, store: ObjectStore, rows: Tensor) -> int:
    """Encode a few objects, as in evaluation.

    Args:
        encoder: f.
        store: the objects.
        rows: of the training set.

    Returns:
        D, the size of its embeddings.

    Raises:
        ValueError: if it fails, or makes anything but one embedding (D,) of each object.
    """
    few = Support(store, rows[:QUERIES])
    name, n = f"encoder={_name(encoder)}", len(few)
    (made,) = _tried(lambda: encoded_as_it_is(encoder, few, slice(0, n), batch_size=n), store, name=name)
    if not (isinstance(made, Tensor) and made.dim() == 2 and len(made) == n and made.is_floating_point()):
        raise ValueError(f"{name}: makes {_kind(made)} of {n} objects; must make their embeddings, ({n}, D) floats")
    return made.shape[1]


def try_memory(memory: Memory, encoder: nn.Module, store: ObjectStore, rows: Tensor) -> None:
    """Read a few objects, unless it is the whole training set that the memory must have.

    Args:
        memory: as it is before training.
        encoder: f.
        store: the objects.
        rows: of the training set.

    Raises:
        ValueError: if what it gives is no `ClassRead` of all queries and classes.
    """
    if memory.needs_whole_support:
        return
    few = Support(store, rows[-OBJECTS:])
    read: Any = None
    with suppress(Exception), torch.random.fork_rng(devices=_devices(store)), in_evaluation(encoder):
        query = encoder(store.take(rows[:QUERIES], dtype=torch.float32))
        read = copy.deepcopy(memory).read(encoder, query, few)
        shapes = tuple(read.class_scores.shape), tuple(read.lowest.shape)
        if isinstance(read, ClassRead) and shapes == ((len(query), few.num_classes), (len(query),)):
            return
    if read is not None:  # what fails may do so for want of objects, and then fails in the first step, with the reason
        raise ValueError(
            f"memory={_name(memory)}: read gives {_kind(read)}; must give a memlab.functional.ClassRead of class scores"
            f" ({QUERIES}, {few.num_classes}) and lowest scores ({QUERIES},) for {QUERIES} queries"
        )


def _tried(do: Callable[[], Any], store: ObjectStore, *, name: str, hint: str = "") -> Any:
    try:
        with torch.random.fork_rng(devices=_devices(store)):
            return do()
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{name}: cannot take objects of shape {store.input_shape} ({why}){hint}") from error


def _devices(store: ObjectStore) -> list[torch.device]:
    return [store.device] if store.device.type == "cuda" else []


def _name(part: object) -> str:
    return getattr(part, "__name__", type(part).__name__)


def _kind(made: Any) -> Any:
    """Shape and type of a tensor, or the tree of those of several."""

    def of_one(leaf: Any) -> str:
        if not isinstance(leaf, Tensor):
            return type(leaf).__name__
        return f"{tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}"

    return tree_map(of_one, made)
