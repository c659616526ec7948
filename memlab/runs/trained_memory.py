"""The trained memory that a run leaves in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from memlab.data.sequences import Sequences
from memlab.runs.assembly import Run, settings_of_hops
from memlab.runs.parts import recipe_in
from memlab.trained.creation import create
from memlab.trained.hops import NamedHops
from memlab.trained.memory import FOLDER
from memlab.trained.model import Model
from memlab.trained.objects import ObjectKind
from memlab.trained.recipes import ENCODERS, READINGS, SIMILARITIES

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def keep_trained(run: Run, cfg: DictConfig, folder: Path, results: dict[str, Any]) -> str:
    """Write the memory as it was tested; what to do with it, in a line, or why there is none.

    Args:
        run: after its test.
        cfg: its configuration.
        folder: of the run.
        results: what was measured.
    """
    data, store = run.datamodule.data, run.datamodule.store
    if not isinstance(store.inputs, Tensor | Sequences):
        return "no trained memory is kept of objects that have several parts"
    if answers_by_layer(run):
        return "no trained memory is kept with memory.answer=layer, whose classes are those of training"
    trained = trained_model(run, cfg)
    if unknown := unknown_part(trained):
        return f"no trained memory is kept with {unknown}"
    target = folder / FOLDER
    if target.exists():  # of an attempt that was interrupted
        shutil.rmtree(target)
    create(
        target,
        model=trained,
        keys=run.model.tested_keys,
        store=store,
        source=data.source,
        calibration_rows=run.datamodule.validation_rows,
        keep=cfg.keep_objects,
        about={"data": data.name, "seed": cfg.seed, "test/accuracy": results["test/accuracy"]},
    )
    if trained.recipes["encoder"]["class"] not in ENCODERS:
        return f'trained memory kept; load it with memlab.load("{folder}", encoder=...), given an encoder of your class'
    rows = "TABLE.npz" if trained.kind.columns is None else "TABLE.csv"
    others = "SEQUENCES.npz" if trained.kind.is_sequence else rows
    others = '--text "..."' if trained.kind.texts is not None else others
    given = "PICTURE" if trained.kind.is_picture else others
    return f"classify with it: memlab predict {folder} {given}"


def trained_model(run: Run, cfg: DictConfig) -> Model:
    """What a run has learned, as it is.

    Args:
        run: of objects that are one tensor each.
        cfg: its configuration.
    """
    model, store, hops = run.model, run.datamodule.store, run.model.memory.hops
    return Model(
        encoder=model.encoder,
        similarity=model.memory.similarity,
        reading=model.reading,
        recipes={
            "encoder": run.encoder_recipe,
            "similarity": recipe_in(cfg.similarity),
            "reading": recipe_in(cfg.evaluation),
        },
        kind=ObjectKind(store.input_shape, store.inputs.dtype, run.datamodule.data.levels, store.columns, store.texts),
        mean=store.mean,
        deviation=store.deviation,
        dtype=model.dtype,  # type: ignore[arg-type]
        autocast=AUTOCAST.get(str(run.trainer.precision)),
        batch_size=run.datamodule.eval_batch_size,
        hops=None if hops is None else NamedHops(hops, settings_of_hops(cfg), tuple(store.class_names)),
    )


def answers_by_layer(run: Run) -> bool:
    """Whether a layer answers, which no trained memory has: its classes come and go."""
    hops = run.model.memory.hops
    return hops is not None and hops.answers_by_layer


def unknown_part(model: Model) -> str | None:
    """What no folder can hold the model for, in words; None if one can."""
    for part, known in (("similarity", SIMILARITIES), ("reading", READINGS)):
        if (name := model.recipes[part]["class"]) not in known:
            return f"{name}, which is no {part} of memlab"
    return None
