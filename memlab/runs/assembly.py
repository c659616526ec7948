"""From a composed configuration to the parts of a run, made and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from memlab.checks import check_choice, check_switch, check_whole_number, parameters_of
from memlab.data.datasets import LabelledData
from memlab.data.datasets.options import OPTIONS, as_sequences, varied
from memlab.memory import Memory, sharded
from memlab.memory.hops import OPTIONS as OPTIONS_OF_HOPS
from memlab.memory.hops import hops_of
from memlab.memory.reading import check_k
from memlab.memory.shared_reading import shared_reading
from memlab.runs.encoding import encoder_of
from memlab.runs.parts import Parts, callbacks_of, facts_of, made, start_of, trainer_of
from memlab.trained.objects import KEPT
from memlab.trained.recipes import Recipe
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.loss_weights import loss_weights
from memlab.training.module import MemoryClassifier
from memlab.training.trial import try_encoder, try_memory


@dataclass
class Run(Parts[EpisodeDataModule, MemoryClassifier]):
    """Everything a run of the classifier needs."""

    encoder_recipe: Recipe

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
            baseline.check_fit(train_size=datamodule.sizes["train"], shape=datamodule.store.shape_of_all)
    for name in ("objects", "page_objects"):
        check_whole_number(f"evidence.{name}", cfg.evidence[name])
    check_switch("figures", cfg.figures)
    check_choice("keep_objects", cfg.keep_objects, KEPT)
    store = datamodule.store
    encoder, recipe = encoder_of(cfg, store, datamodule.train_rows)
    callbacks = callbacks_of(cfg)
    trainer = trainer_of(cfg, callbacks, datamodule.batches)
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
    with parameters_of("loss"):
        train_labels = store.labels[datamodule.train_rows]
        class_weights = loss_weights(cfg.loss.class_weights, train_labels, store.class_names)
    model = MemoryClassifier(
        encoder=encoder,
        embedding_size=try_encoder(encoder, store, datamodule.train_rows),
        memory=memory,
        reading=reading,
        class_names=store.class_names,
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler),
        evidence_k=cfg.evidence.k,
        class_weights=class_weights,
        compile=cfg.compile,
    )
    check_choice("monitor", cfg.monitor, list(map(str, model.validation_metrics)))
    if "monitor" in cfg.scheduler and trainer.check_val_every_n_epoch is None:
        raise ValueError(
            "trainer.check_val_every_n_epoch=None: must be a number of epochs, so that the learning rate can follow"
            f" {cfg.scheduler.monitor} from one validation to the next"
        )
    start = start_of(cfg, model, trainer)
    try_memory(memory, encoder, store, datamodule.train_rows)  # last: it may have something to say in the log
    trainer.precision_plugin.convert_module(model)  # Lightning does so when it has loaded a checkpoint, rounded by then
    facts = facts_of(cfg, model, trainer, data=datamodule.data.name)
    return Run(datamodule, model, trainer, callbacks, start, baselines, facts, recipe)


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
    return made(cfg, "memory", Memory, similarity=instantiate(cfg.similarity), **({"hops": hops} if hops else {}))


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


def _data(cfg: DictConfig, given: LabelledData | None) -> LabelledData:
    """What is given or the loader gives, as far as the options of every data set leave it."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    options, read, shrink = {name: cfg.data.pop(name) for name in OPTIONS}, cfg.data.pop("as"), cfg.data.pop("shrink")
    data = made(cfg, "data", LabelledData) if given is None else given
    with parameters_of("data"):
        return as_sequences(varied(data, **options), read, shrink=shrink)
