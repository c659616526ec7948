"""Parts of a run tried out on a few objects, so that what cannot work is told before anything is written.

No random state is touched, and no part is changed.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memlab.data.objects import ObjectStore
from memlab.data.support import Support
from memlab.functional import ClassRead, class_log_mass
from memlab.memory import Memory
from memlab.memory.stored_keys import StoredKeys, encoded_as_it_is, in_evaluation

log = logging.getLogger(__name__)

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
    made = _tried(lambda: encoded_as_it_is(encoder, few, slice(0, n), batch_size=n), store, name=name)
    if not (isinstance(made, Tensor) and made.dim() == 2 and len(made) == n and made.is_floating_point()):
        raise ValueError(f"{name}: makes {_kind(made)} of {n} objects; must make their embeddings, ({n}, D) floats")
    return made.shape[1]


def try_memory(memory: Memory, encoder: nn.Module, store: ObjectStore, rows: Tensor) -> None:
    """Read a few objects by a memory of the user's own, unless it is the whole training set that it must have.

    Says so in the log if they are read otherwise in evaluation, which a memory may do on purpose.

    Args:
        memory: as it is before training.
        encoder: f.
        store: the objects.
        rows: of the training set.

    Raises:
        ValueError: if what it gives is no `ClassRead` of all queries and classes, with gradient.
    """
    if memory.needs_whole_support or type(memory).__module__.startswith("memlab."):
        return
    name, few, memory = f"memory={_name(memory)}", Support(store, rows[-OBJECTS:]), copy.deepcopy(memory)
    try:
        with torch.random.fork_rng(devices=_devices(store)), in_evaluation(encoder):
            query = encoder(store.take(rows[:QUERIES], dtype=torch.float32))
            read = memory.read(encoder, query, few, None)
            stored = memory.stored_keys(
                lambda: StoredKeys.encode(
                    encoder=encoder, similarity=memory.similarity, support=few, batch_size=OBJECTS, hops=memory.hops
                )
            ).read(query)
    except (TypeError, AttributeError, NameError) as error:
        raise ValueError(f"{name}: cannot read ({type(error).__name__}: {error})") from error
    except Exception:  # perhaps for want of objects: if not, the first step fails, and shows where
        return
    shapes = (len(query), few.num_classes), (len(query),)
    if not isinstance(read, ClassRead) or (tuple(read.class_scores.shape), tuple(read.lowest.shape)) != shapes:
        raise ValueError(
            f"{name}: read gives {_kind(read)}; must give what memlab.functional.read does, a ClassRead of class scores"
            f" {shapes[0]} and lowest scores {shapes[1]} for {len(query)} queries"
        )
    if not read.class_scores.requires_grad:
        raise ValueError(
            f"{name}: read gives class scores without gradient; must keep it, so that something is learned"
        )
    if not torch.allclose(class_log_mass(read.class_scores), class_log_mass(stored.class_scores), rtol=1e-3, atol=1e-3):
        log.info(
            f"{name}: reads otherwise in training than in evaluation, where all stored keys are read by the softmax of"
            " their similarity; override stored_keys if that is not what is meant"
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
