"""A run from arrays to what was learned, in somebody else's process: nothing is written, printed or left changed."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import SIGTERMException

from memlab.data.column_kinds import learned_columns
from memlab.data.columns import Columns
from memlab.data.datasets import LabelledData
from memlab.data.frames import frame_of
from memlab.data.support import Support
from memlab.memory import StoredKeys
from memlab.runs.assembly import Run, assemble
from memlab.runs.composition import check_names, chosen_config, conf_folder
from memlab.runs.mistakes import one_line
from memlab.runs.parts import SETUP_ERRORS
from memlab.runs.trained_memory import answers_by_layer, trained_model
from memlab.trained.unsaved import UnsavedMemory
from memlab.training.nonfinite import DivergenceError

CONFIG = "estimator"
"""The file in the folder of groups that such a run starts from."""
LOUD = ("faiss", "lightning_fabric", "pytorch_lightning")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SEEDS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""What Lightning leaves in the environment."""

_one_at_a_time = threading.Lock()
"""Torch's generators, Hydra's singletons and the filters of warnings are one for all threads."""


def learn(data: LabelledData, words: Sequence[str]) -> tuple[UnsavedMemory, int]:
    """Train on some objects.

    Args:
        data: all are for training, some of them for validation; none is for the test.
        words: what is to be otherwise than in ``conf/estimator.yaml``, as on the command line.

    Returns:
        the memory of all the objects, those held out for validation included, as they were learned at the best
        validation; and the epochs of training.

    Raises:
        ValueError: for a mistake, in one line that begins with its place in the configuration.
    """
    with _one_at_a_time, _nothing_left_behind():
        try:
            cfg = _composed(tuple(words))
            run = assemble(cfg, data)
            if answers_by_layer(run):
                raise ValueError("memory.answer=layer: must be read here; a layer knows the classes of training alone")
        except SETUP_ERRORS as error:
            raise ValueError(one_line(error, lambda: chosen_config(str(conf_folder()), words), words)) from error
        try:
            run.trainer.fit(run.model, datamodule=run.datamodule)
        except (MisconfigurationException, DivergenceError) as error:
            raise ValueError(one_line(error)) from error
        except SIGTERMException:
            raise
        except SystemExit:  # how Lightning ends after Ctrl-C
            raise KeyboardInterrupt from None
        return _learned(run, cfg), run.trainer.current_epoch


def columns_of(table: Any, labels: Sequence[str]) -> Columns:
    """What the columns of a data frame are, found as ``data=table`` finds them.

    Args:
        table: of pandas or polars.
        labels: (n,) names of the classes of its rows.

    Raises:
        ValueError: for what is no such table, or one without a column to learn from.
    """
    rare_below = OmegaConf.load(conf_folder() / "data" / "table.yaml").rare_below
    return learned_columns(frame_of(table), labels, rare_below=rare_below)


def _composed(words: tuple[str, ...]) -> DictConfig:
    """The configuration, and Hydra told of it as by an application of its own."""
    whole, cfg = _compositions(words)
    HydraConfig.instance().set_config(whole)
    return cfg


@lru_cache(maxsize=64)
def _compositions(words: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """The configuration with Hydra's own and without.

    It takes a tenth of a second or more, and is the same for all parts of a cross-validation.
    """
    conf = str(conf_folder())
    with hydra.initialize_config_dir(conf, version_base="1.3"):
        whole = hydra.compose(CONFIG, list(words), return_hydra_config=True)
    cfg = OmegaConf.masked_copy(whole, [str(name) for name in whole if name != "hydra"])
    check_names(cfg, conf=conf)
    return whole, cfg


def _learned(run: Run, cfg: DictConfig) -> UnsavedMemory:
    datamodule, device = run.datamodule, run.trainer.strategy.root_device
    store, rows = datamodule.store, datamodule.data.train_rows
    store.place(inputs_on=store.inputs_device, compute_on=device)
    run.model.to(device).eval()
    # Rounding is otherwise in other batches: of float64 inputs nobody is to see it in the answers.
    if wide := store.inputs.dtype is torch.float64:
        run.model.double()
    model = trained_model(run, cfg)
    model = replace(model, autocast=None if wide else model.autocast)
    support = Support(store, rows.to(store.inputs_device), model.dtype)
    with torch.autocast(device.type, dtype=model.autocast, enabled=model.autocast is not None), torch.no_grad():
        keys = run.model.memory.stored_keys(
            lambda: StoredKeys.encode(
                encoder=model.encoder, similarity=model.similarity, support=support, batch_size=model.batch_size
            )
        )
    about = {"data": datamodule.data.name, "seed": cfg.seed}
    return UnsavedMemory.of(model, keys, store, source=datamodule.data.source, keep=cfg.keep_objects, about=about)


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """After this context all is for the process as it was before.

    That is random states, what Lightning leaves in the environment, levels of logging, filters of warnings, handlers of
    signals, and a Hydra application that may be around.
    """
    environment = {name: os.environ.get(name) for name in SEEDS}
    levels = {name: logging.getLogger(name).level for name in LOUD}
    in_main_thread = threading.current_thread() is threading.main_thread()  # the only one that has handlers
    handlers = {number: signal.getsignal(number) for number in SIGNALS if in_main_thread}
    drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()
    drawn_on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    with _hydra_as_it_was(), warnings.catch_warnings(action="ignore"):
        for name in LOUD:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])
            torch.set_rng_state(drawn[2])
            for device, state in enumerate(drawn_on_gpus):
                torch.cuda.set_rng_state(state, device)
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            for name, value in environment.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def _hydra_as_it_was() -> Iterator[None]:
    """Within this context there is no Hydra application; afterwards the one that was there before, or none."""
    instance, base, config = GlobalHydra.instance(), VersionBase.instance(), HydraConfig.instance()
    before = instance.hydra, base.version_base, config.cfg
    instance.clear()
    try:
        yield
    finally:
        GlobalHydra.set_instance(instance)
        instance.hydra, base.version_base, config.cfg = before
