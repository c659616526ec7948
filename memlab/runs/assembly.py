"""From a composed configuration to the parts of a run, made and checked before anything is written."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from memlab.baselines import Baseline
from memlab.checks import check_choice, check_switch, check_whole_number, parameters_of
from memlab.data.datasets import LabelledData
from memlab.data.datasets.options import OPTIONS, varied
from memlab.data.objects import ObjectStore
from memlab.device import machine_name
from memlab.files import ADDRESS
from memlab.memory import Memory, sharded
from memlab.memory.hops import OPTIONS as OPTIONS_OF_HOPS
from memlab.memory.hops import hops_of
from memlab.memory.reading import check_k
from memlab.memory.shared_reading import shared_reading
from memlab.runs.results import versions
from memlab.runs.resume import without_resume
from memlab.trained.objects import KEPT
from memlab.training.checkpoint_files import DamagedCheckpointError, read_checkpoint
from memlab.training.checkpoints import LAST, newest_checkpoint
from memlab.training.compatibility import check_fits, check_something_left
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.module import MemoryClassifier
from memlab.training.trial import try_encoder, try_memory

T = TypeVar("T")

SETUP_ERRORS = (HydraException, OmegaConfBaseException, MisconfigurationException, ValueError, OSError, ImportError)
"""What a user's mistake shows as while a run is set up."""
SHOWN = 100_000
"""Training objects, at most, that an encoder with ``fit_inputs`` is shown before training."""


@dataclass
class Run:
    """Everything a run needs."""

    datamodule: EpisodeDataModule
    model: MemoryClassifier
    trainer: pl.Trainer
    callbacks: dict[str, pl.Callback]
    """Those of the configuration, by name."""
    start: Path | None
    """The checkpoint to go on from."""
    baselines: dict[str, Baseline]
    facts: dict[str, Any]
    """What is run, without which a figure means nothing."""

    @property
    def best_checkpoint(self) -> ModelCheckpoint:
        """Of a run with a folder."""
        callback = self.callbacks["best_checkpoint"]
        assert isinstance(callback, ModelCheckpoint)
        return callback

    @property
    def sizes(self) -> dict[str, int | None]:
        """Objects of every kind that are used, M among them as ``support``; 0 if no support is read."""
        return self.datamodule.sizes | self.model.memory.sizes


def assemble(cfg: DictConfig, data: LabelledData | None = None, *, alone: bool = True) -> Run:
    """Make all parts from their configuration.

    Args:
        cfg: the configuration.
        data: objects in the place of those that it loads.
        alone: whether the run must be one of a single process.
    """
    pl.seed_everything(check_whole_number("seed", cfg.seed, minimum=0), workers=True)
    datamodule = instantiate(
        cfg.datamodule,
        data=_data(cfg, data),
        support=instantiate(cfg.support),
        augmentation=instantiate(cfg.augmentation),
    )
    baselines = instantiate(cfg.get("baselines", {}))
    for name, baseline in baselines.items():
        with parameters_of(f"baselines.{name}"):
            baseline.check_fit(train_size=datamodule.sizes["train"], shape=datamodule.store.input_shape)
    for name in ("objects", "page_objects"):
        check_whole_number(f"evidence.{name}", cfg.evidence[name])
    check_switch("figures", cfg.figures)
    check_choice("keep_objects", cfg.keep_objects, KEPT)
    store = datamodule.store
    encoder = _made(cfg, "encoder", nn.Module, **words_for(cfg.encoder, store))
    if (fit := getattr(encoder, "fit_inputs", None)) is not None:
        rows = datamodule.train_rows
        fit(store.take(rows[:: -(-len(rows) // SHOWN)], dtype=torch.float32))
    callbacks = dict(instantiate(cfg.callbacks))
    trainer = instantiate(
        cfg.trainer,
        batches=datamodule.batches,
        callbacks=list(callbacks.values()),
        logger=list(instantiate(cfg.get("logger", {})).values()),
    )
    memory = memory_of(cfg)
    if memory.needs_whole_support and not datamodule.reads_whole_training_set:
        support = HydraConfig.get().runtime.choices["support"]
        raise ValueError(f"support={support}: must be whole, the training set that this memory finds its cells in")
    reading = instantiate(cfg.evaluation)
    with parameters_of("evidence"):
        check_k(cfg.evidence.k, available=reading.cells(datamodule.sizes["train"]))
    if trainer.world_size > 1:
        _check_several(trainer, datamodule, alone=alone)
        with parameters_of("memory"):
            memory = sharded(memory)
        reading = shared_reading(reading)
    model = MemoryClassifier(
        encoder=encoder,
        embedding_size=try_encoder(encoder, store, datamodule.train_rows),
        memory=memory,
        reading=reading,
        class_names=store.class_names,
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler),
        evidence_k=cfg.evidence.k,
        compile=cfg.compile,
    )
    check_choice("monitor", cfg.monitor, list(map(str, model.validation_metrics)))
    if "monitor" in cfg.scheduler and trainer.check_val_every_n_epoch is None:
        raise ValueError(
            "trainer.check_val_every_n_epoch=None: must be a number of epochs, so that the learning rate can follow"
            f" {cfg.scheduler.monitor} from one validation to the next"
        )
    start = _start(cfg, model, trainer)
    try_memory(memory, encoder, store, datamodule.train_rows)  # last: it may have something to say in the log
    trainer.precision_plugin.convert_module(model)  # Lightning does so when it has loaded a checkpoint, rounded by then
    facts = _facts(cfg, datamodule, model, trainer)
    return Run(datamodule, model, trainer, callbacks, start, baselines, facts)


def memory_of(cfg: DictConfig) -> Memory:
    """The memory that a configuration asks for, with hops if it has any.

    Raises:
        ValueError: if it gives something else, or has no hops.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    with parameters_of("memory"):
        hops = hops_of(**settings_of_hops(cfg))
    for name in OPTIONS_OF_HOPS:
        del cfg.memory[name]
    return _made(cfg, "memory", Memory, similarity=instantiate(cfg.similarity), **({"hops": hops} if hops else {}))


def settings_of_hops(cfg: DictConfig) -> dict[str, Any]:
    """What hops are made with, or would be if there were any."""
    return {name: cfg.memory[name] for name in OPTIONS_OF_HOPS}


def _check_several(trainer: pl.Trainer, datamodule: EpisodeDataModule, *, alone: bool) -> None:
    """See that there may be several processes, and something for each.

    Raises:
        ValueError: if not.
    """
    given = f"trainer.devices={trainer.num_devices}"
    if alone:
        raise ValueError(f"{given}: must be 1 here; runs of several processes are begun by python train.py")
    trainer.strategy.cluster_environment.validate_settings(  # type: ignore[attr-defined]
        num_devices=trainer.num_devices, num_nodes=trainer.num_nodes
    )
    if (size := datamodule.sizes["train"]) < trainer.world_size:
        raise ValueError(f"{given}: must be at most {size}, the training objects, one for each process")


def _start(cfg: DictConfig, model: MemoryClassifier, trainer: pl.Trainer) -> Path | None:
    """The checkpoint to go on from: with ``resume`` the newest in the folder, if there is one."""
    if cfg.resume and (newest := _newest(Path(cfg.callbacks.last_checkpoint.dirpath), trainer)):
        check_fits(read_checkpoint(newest), model, name=str(newest))
        return newest
    if cfg.ckpt_path is None:
        return None
    if ADDRESS.match(str(cfg.ckpt_path)):
        raise ValueError(f"ckpt_path={cfg.ckpt_path}: is an address; must be a file here, copy it first")
    path = Path(cfg.ckpt_path)
    try:
        checkpoint = read_checkpoint(path)
    except DamagedCheckpointError as error:
        raise ValueError(f"ckpt_path={error}") from error
    check_fits(checkpoint, model, name=f"ckpt_path={path}")
    check_something_left(checkpoint, trainer, path=path)
    return path


def _newest(folder: Path, trainer: pl.Trainer) -> Path | None:
    """The checkpoint to go on from; of several processes the first sees to the files, before the others read any."""
    if trainer.is_global_zero:
        return newest_checkpoint(folder)
    return folder / LAST if (folder / LAST).is_file() else None


def _made(cfg: DictConfig, group: str, kind: type[T], **words: Any) -> T:
    """What the target of a group gives, which may be of the user's own.

    Raises:
        ValueError: if it is something else.
    """
    part = instantiate(cfg[group], **words)
    if not isinstance(part, kind):
        given, wanted = type(part).__name__, f"{kind.__module__.rpartition('.')[0]}.{kind.__name__}"
        raise ValueError(f"{group}={cfg[group]._target_}: gives a {given}; must give a {wanted}")
    return part


def _data(cfg: DictConfig, given: LabelledData | None) -> LabelledData:
    """What is given or the loader gives, as far as the options of every data set leave it."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    options = {name: cfg.data.pop(name) for name in OPTIONS}
    data = _made(cfg, "data", LabelledData) if given is None else given
    with parameters_of("data"):
        return varied(data, **options)


def words_for(encoder: DictConfig, store: ObjectStore) -> dict[str, Any]:
    """What an encoder takes of the objects by name: their ``input_shape``, and of columns the number of ``words``.

    Raises:
        ValueError: for rows with words or missing values, and an encoder that does not know them from numbers.
    """
    module, _, name = encoder._target_.rpartition(".")
    own = {"input_shape": store.input_shape}
    taken: dict[str, inspect.Parameter] = {}
    with suppress(Exception):  # `instantiate` tells of a target that there is not
        taken = dict(inspect.signature(getattr(import_module(module), name)).parameters)
        if "input_shape" not in taken and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            own = {}
    if store.columns is None:
        return own
    if "words" in taken:
        return {**own, "words": list(store.columns.words)}
    for place, column in enumerate(store.columns.columns):
        if column.kind == "word" or bool(store.inputs[:, place].isnan().any()):
            has = "words" if column.kind == "word" else "missing values"
            raise ValueError(f"encoder={name}: takes numbers alone, and column {column.name} has {has}; use table")
    return own


def _facts(
    cfg: DictConfig, datamodule: EpisodeDataModule, model: MemoryClassifier, trainer: pl.Trainer
) -> dict[str, Any]:
    """What is run, as far as it is known before training, so that nothing of it can fail when training is over."""
    hydra = HydraConfig.get()
    choices = {group: option for group, option in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    for name, value in (word.lstrip("+").split("=", 1) for word in hydra.overrides.task if "=" in word):
        if name.endswith("._target_"):  # a class of the user's own, whatever option it was put into
            choices[name.removesuffix("._target_").replace(".", "/")] = value
    return {
        "seed": cfg.seed,
        "data": datamodule.data.name,
        "overrides": without_resume(hydra.overrides.task),
        "choices": choices,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "machine": machine_name(trainer.strategy.root_device),
        "precision": trainer.precision,
        "versions": versions(),
    }
