"""Who tells wrong labels from right ones: a trained memory and cleanlab, on the same embeddings.

The memory is that of a run with ``data.flip_labels``, which was trained with the wrong labels and says in
``flipped.csv`` which they are. A call gives (M,) scores, the lower the more a label looks wrong.
"""

from __future__ import annotations

import copy
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memlab.benchmark.material import Call, Maker, Material
from memlab.benchmark.problem import OWN
from memlab.data.parts import parts
from memlab.functional import own_margin
from memlab.memory.stored_keys import StoredKeys
from memlab.runs.results import FLIPPED, read_flipped
from memlab.trained import load
from memlab.trained.model import Model

OWN_AUDIT = f"{OWN} audit"
FOLDS, NEIGHBOURS = 5, 10
"""Of the cross-validation that gives cleanlab probabilities of objects not learned from; of a vote."""


class Audited(NamedTuple):
    """Objects of a memory whose labels are known to be right or wrong."""

    model: Model
    stored: StoredKeys
    wrong: Tensor
    """(M,) whether each label is."""


@lru_cache(maxsize=1)
def audited(run: str, size: int | None = None) -> Audited:
    """Objects of the memory of a run.

    Args:
        run: its folder.
        size: how many, drawn at random; None for all.

    Raises:
        ValueError: for a run whose labels were not flipped.
    """
    if not (Path(run) / FLIPPED).is_file():
        raise ValueError(f"--run {run}: has no {FLIPPED}; must be a run with data.flip_labels above 0")
    memory = load(run)
    content = memory._content
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(content), generator=generator)[:size].sort().values
    ids = content.ids[chosen]
    stored = StoredKeys(
        content.keys[chosen], content.labels[chosen], ids, len(content.classes), memory._model.similarity
    )
    return Audited(memory._model, stored, torch.isin(ids, torch.tensor(read_flipped(Path(run)))))


def audits() -> dict[str, Maker]:
    """The contenders by name."""
    return {
        OWN_AUDIT: _own,
        "cleanlab, neighbours": _cleanlab("neighbours"),
        "cleanlab, regression": _cleanlab("regression"),
    }


def auroc(material: Material, scores: Tensor) -> float:
    """How surely a wrong label has a lower score than a right one."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(_material(material).wrong.numpy(), torch.nan_to_num(-scores).numpy()))


def _material(material: Material) -> Audited:
    return audited(material.problem.run, material.problem.support)


def _own(material: Material) -> Call:
    """What orders the labels of ``memlab audit``: every object read by all others."""
    model, stored, _ = _material(material)
    reading = copy.copy(model.reading)
    reading.open(stored)

    @torch.no_grad()
    def call() -> Tensor:
        read = [
            reading.class_scores(stored.keys[part], stored.ids[part]) for part in parts(len(stored), model.batch_size)
        ]
        return own_margin(torch.cat(read).double(), stored.labels)

    return call


def _cleanlab(kind: str) -> Maker:
    """Its label quality scores of probabilities by cross-validation on the embeddings, as its documentation advises."""

    def make(material: Material) -> Call:
        from cleanlab.rank import get_label_quality_scores
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_predict
        from sklearn.neighbors import KNeighborsClassifier

        stored = _material(material).stored
        keys, labels = stored.keys.numpy(), stored.labels.numpy()

        def call() -> Tensor:
            model: Any = KNeighborsClassifier(NEIGHBOURS) if kind == "neighbours" else LogisticRegression(max_iter=200)
            with warnings.catch_warnings(action="ignore"):  # of few objects, and of an end before all is still
                mass = cross_val_predict(model, keys, labels, cv=FOLDS, method="predict_proba")
            return torch.from_numpy(get_label_quality_scores(labels, mass))

        return call

    return make
