"""The encoder of a configuration: what it takes of the objects, what it is shown of them, and vectors of words."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from memlab.checks import check_switch
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.word_vectors import WordVectors, read_word_vectors
from memlab.encoders.texts import TokenVectors
from memlab.runs.parts import made, recipe_in
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
    own = without_options(cfg)
    words = words_for(own.encoder, store)
    others = {name: cfg.encoder[name] for name in OPTIONS if name in cfg.encoder and name not in own.encoder}
    tuned = check_switch("encoder.tune_vectors", others.get("tune_vectors", True))
    vectors = None
    if (path := others.get("vectors")) is not None:
        vectors = _word_vectors(str(path), store, train_rows)
        words["word_size"] = vectors.size
    elif not tuned:
        raise ValueError("encoder.tune_vectors=false: must be true without encoder.vectors, as nothing was learned")
    encoder = made(own, "encoder", nn.Module, **words)
    if vectors is not None:
        for module in encoder.modules():
            if isinstance(module, TokenVectors):
                module.start_with(vectors.rows, tuned=tuned)
    if (fit := getattr(encoder, "fit_inputs", None)) is not None:
        fit(store.take(train_rows[:: -(-len(train_rows) // SHOWN)], dtype=torch.float32))
    return encoder, recipe_in(own.encoder, **words)


def without_options(cfg: DictConfig) -> DictConfig:
    """A configuration with what the encoder is made with alone, of which an own one may have options of these names."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    _, taken, _ = _signature(cfg.encoder)
    for name in OPTIONS:
        if name in cfg.encoder and name not in taken:
            del cfg.encoder[name]
    return cfg


def _word_vectors(path: str, store: ObjectStore, train_rows: Tensor) -> WordVectors:
    texts = store.texts
    if texts is None or texts.tokens.kind == "characters":
        objects = "characters" if texts is not None else f"objects {store.input_shape}"
        raise ValueError(f"encoder.vectors={path}: are those of words, and these are {objects}; must be null")
    try:
        found = read_word_vectors(Path(path), texts.vocabulary.words)
    except ValueError as error:
        raise ValueError(f"encoder.vectors={error}") from error
    assert isinstance(store.inputs, Sequences)
    numbers = store.inputs.steps_of(train_rows.to(store.inputs.device)).flatten().long()
    log.info(found.told(path, numbers.bincount(minlength=len(found.rows))[: len(found.rows)]))
    return found


def words_for(encoder: DictConfig, store: ObjectStore) -> dict[str, Any]:
    """What an encoder takes of the objects by name: their ``input_shape``, and of columns and texts how many ``words``.

    Raises:
        ValueError: for rows with words or missing values, and an encoder that does not know them from numbers.
    """
    name, (reads_sequences, taken, takes_all) = encoder._target_.rpartition(".")[2], _signature(encoder)
    own = {"input_shape": store.input_shape} if takes_all or "input_shape" in taken else {}
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


def _signature(encoder: DictConfig) -> tuple[bool, set[str], bool]:
    """Of its class: whether it reads sequences, its parameters, and whether it takes others too."""
    module, _, name = encoder._target_.rpartition(".")
    with suppress(Exception):  # `instantiate` tells of a target that there is not
        kind = getattr(import_module(module), name)
        parameters = inspect.signature(kind).parameters
        takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        return getattr(kind, "reads_sequences", False), set(parameters), takes_all
    return False, {"input_shape"}, False
