"""The encoder of a configuration: what it takes of the objects, what it is shown of them, and vectors of words."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from memlab.checks import check_switch
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.word_vectors import WordVectors, read_word_vectors
from memlab.encoders.texts import TokenVectors
from memlab.runs.parts import check_kind, recipe_in
from memlab.trained.recipes import Recipe

log = logging.getLogger("memlab")

OPTIONS = ("vectors", "tune_vectors")
"""Of encoders of texts besides what they are made with: vectors that those of their tokens start with."""
SHOWN = 100_000
"""Training objects, at most, that an encoder with ``fit_inputs`` is shown before training."""


def encoder_of(cfg: DictConfig, store: ObjectStore, train_rows: Tensor) -> tuple[nn.Module, Recipe]:
    """The encoder that a configuration asks for, and how to make it again, whatever files it has been made of.

    Raises:
        ValueError: for a value out of range, objects that it does not take, or vectors that cannot be read.
    """
    settings = made_with(cfg.encoder)
    words = words_for(settings, store)
    vectors = _word_vectors(cfg.encoder, store, train_rows)
    if vectors is not None:
        words["word_size"] = vectors.size
    encoder = check_kind(instantiate(settings, **words), "encoder", settings, nn.Module)
    if vectors is not None:
        for module in encoder.modules():
            if isinstance(module, TokenVectors):
                module.start_with(vectors.rows, tuned=check_switch("tune_vectors", cfg.encoder.tune_vectors))
    if (fit := getattr(encoder, "fit_inputs", None)) is not None:
        fit(store.take(train_rows[:: -(-len(train_rows) // SHOWN)], dtype=torch.float32))
    return encoder, recipe_in(settings, **words)


def made_with(encoder: DictConfig) -> DictConfig:
    """What an encoder is made with, of its configuration."""
    return OmegaConf.masked_copy(encoder, [str(name) for name in encoder if name not in OPTIONS])


def _word_vectors(encoder: DictConfig, store: ObjectStore, train_rows: Tensor) -> WordVectors | None:
    path = encoder.get("vectors")
    if path is None:
        if encoder.get("tune_vectors") is False:
            raise ValueError("encoder.tune_vectors=false: must be true without encoder.vectors, as nothing was learned")
        return None
    texts = store.texts
    if texts is None or texts.tokens.kind == "characters":
        objects = "characters" if texts is not None else f"objects {store.input_shape}"
        raise ValueError(f"encoder.vectors={path}: are those of words, and these are {objects}; must be null")
    try:
        found = read_word_vectors(Path(str(path)), texts.vocabulary.words)
    except ValueError as error:
        raise ValueError(f"encoder.vectors={error}") from error
    assert isinstance(store.inputs, Sequences)
    numbers = store.inputs.steps_of(train_rows.to(store.inputs.device)).flatten().long()
    log.info(found.told(str(path), numbers.bincount(minlength=len(found.rows))[: len(found.rows)]))
    return found


def words_for(encoder: DictConfig, store: ObjectStore) -> dict[str, Any]:
    """What an encoder takes of the objects by name: their ``input_shape``, and of columns and texts how many ``words``.

    Raises:
        ValueError: for rows with words or missing values, and an encoder that does not know them from numbers.
    """
    module, _, name = encoder._target_.rpartition(".")
    own = {"input_shape": store.input_shape}
    taken: dict[str, inspect.Parameter] = {}
    takes_all = reads_sequences = False
    with suppress(Exception):  # `instantiate` tells of a target that there is not
        kind = getattr(import_module(module), name)
        reads_sequences = getattr(kind, "reads_sequences", False)
        taken = dict(inspect.signature(kind).parameters)
        takes_all = any(each.kind is each.VAR_KEYWORD for each in taken.values())
        if "input_shape" not in taken and not takes_all:
            own = {}
    if store.texts is not None and reads_sequences and ("words" in taken or takes_all):
        texts = store.texts
        pairs = {} if texts.separator is None else {"separator": texts.separator}
        return {**own, "words": len(texts.vocabulary), **pairs}
    if store.columns is None:
        return own
    if "words" in taken:
        return {**own, "words": list(store.columns.words)}
    for place, column in enumerate(store.columns.columns):
        if column.kind == "word" or bool(store.inputs[:, place].isnan().any()):
            has = "words" if column.kind == "word" else "missing values"
            raise ValueError(f"encoder={name}: takes numbers alone, and column {column.name} has {has}; use table")
    return own
