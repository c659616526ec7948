"""How sure answers are, measured on objects that are neither in the memory nor seen in training.

Split conformal prediction (Vovk, Gammerman and Shafer 2005, chapter 4): with the nonconformity
``a_bc = -log y_bc``, y the class mass, the p-value of class c for query b is the share of the calibration objects whose
true class conforms no better, the query counted among them:

``p_bc = (1 + #{i: a_i >= a_bc}) / (n + 1)``.

If query and calibration objects are drawn alike, its true class has a p-value of at most e with probability at most e.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memlab.functional import class_log_mass
from memlab.trained.model import bytes_of
from memlab.trained.refusal import RefusedMemoryError

HOTTEST = 100.0
BINS = 15


def nonconformity(class_scores: Tensor) -> Tensor:
    """``a_bc = -log y_bc``: (B, C) in float64 from (B, C) class scores; infinity for a class that was not read.

    >>> nonconformity(torch.tensor([[0.0, -torch.inf]]))
    tensor([[-0., inf]], dtype=torch.float64)
    """
    return -class_log_mass(class_scores.double())


def p_values(of_classes: Tensor, of_calibration: Tensor) -> Tensor:
    """``p_bc = (1 + #{i: a_i >= a_bc}) / (n + 1)``.

    Args:
        of_classes: (B, C) a_bc.
        of_calibration: (n,) a_i, of the true classes of the calibration objects.

    >>> p_values(torch.tensor([[0.5, 3.0]]), torch.tensor([0.1, 1.0, 2.0]))
    tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    ascending = of_calibration.sort().values
    smaller = torch.searchsorted(ascending, of_classes.to(ascending).contiguous())
    return (1.0 + len(ascending) - smaller).double() / (len(ascending) + 1)


def fit_temperature(class_scores: Tensor, labels: Tensor) -> float:
    """The T above 0 with the least ``sum_b -log softmax(s_b / T)_t`` (Guo et al. 2017), from 0.01 to 100.

    The sum is convex in 1 / T, and its derivative ``sum_b E_y[s_b] - s_bt`` is brought to 0 by bisection of log T.
    Objects whose true class was not read are left out, as no temperature helps them; 1 if there are no others.

    Args:
        class_scores: (n, C) class scores.
        labels: (n,) true class numbers; -1 for a class that there is not.

    >>> scores = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> round(fit_temperature(scores, torch.tensor([0, 0, 0, 1])), 4)  # 2 / log 3, which makes the mass 3/4
    1.8205
    """
    own = class_scores.double().gather(1, labels.clamp(min=0)[:, None])[:, 0]
    usable = (labels >= 0) & own.isfinite()
    scores, own = class_scores.double()[usable], own[usable]
    if not len(own):
        return 1.0
    finite = scores.masked_fill(scores.isneginf(), 0)
    low, high = 1 / HOTTEST, HOTTEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        excess = ((scores / middle).softmax(-1) * finite).sum() - own.sum()
        if excess > 0:  # too sure of others: cooler would be worse
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def calibration_error(mass: Tensor, right: Tensor) -> float:
    """``sum_i T_i / T |accuracy_i - confidence_i|`` over 15 bins i of the largest mass, which is the confidence.

    Args:
        mass: (T, C) class mass.
        right: (T,) whether the answer is the true class.

    >>> round(calibration_error(torch.tensor([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([True, False])), 4)
    0.4
    """
    confidence = mass.double().amax(-1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, right.double() - confidence)
    return float(gaps.abs().sum()) / len(mass)


@dataclass(frozen=True)
class CalibrationObjects:
    """Encoded objects that are held out, and how well their true classes conform.

    Args:
        queries: (n, D) encoded objects, in host memory.
        labels: (n,) names of their classes.
        nonconformity: (n,) a_i in float64.
        measured_on: digest of the memory that was read for it.
    """

    queries: Tensor
    labels: tuple[str, ...]
    nonconformity: Tensor
    measured_on: str

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        words = json.dumps([self.labels, self.measured_on, str(self.queries.dtype), self.queries.shape[1]])
        return hashlib.sha256(words.encode() + bytes_of(self.queries) + bytes_of(self.nonconformity)).hexdigest()

    def to_bytes(self) -> bytes:
        """The file."""
        words = json.dumps({"labels": self.labels, "measured_on": self.measured_on})
        tensors = {"queries": self.queries.contiguous(), "nonconformity": self.nonconformity.contiguous()}
        return save(tensors, metadata={"memlab": words})


def numbers_of(names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """(n,) class numbers of names; -1 for one that is no class."""
    number = {name: label for label, name in enumerate(classes)}
    return torch.tensor([number.get(name, -1) for name in names], dtype=torch.int64)


def own_nonconformity(class_scores: Tensor, labels: Tensor) -> Tensor:
    """(n,) a_i of the true classes; infinity for a class that there is not."""
    own = nonconformity(class_scores).cpu().gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return own.masked_fill(labels < 0, torch.inf)


def read_calibration(file: Path, *, digest: str, objects: int) -> CalibrationObjects:
    """Read calibration objects and see that they are what the manifest says.

    Raises:
        FileNotFoundError: if they are not there.
        RefusedMemoryError: if they are something else.
    """
    if not file.exists():
        raise FileNotFoundError(file)
    try:
        with safe_open(file, framework="pt") as opened:
            words: dict[str, Any] = json.loads((opened.metadata() or {})["memlab"])
            queries, scores = (opened.get_tensor(name).clone() for name in ("queries", "nonconformity"))
        found = CalibrationObjects(queries, tuple(words["labels"]), scores, words["measured_on"])
        good = (
            found.digest == digest
            and len(queries) == len(scores) == len(found.labels) == objects
            and all(isinstance(word, str) for word in found.labels)
            and queries.dim() == 2
            and queries.is_floating_point()
            and queries.isfinite().all()
            and scores.dim() == 1
            and scores.dtype is torch.float64
            and not scores.isnan().any()
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise RefusedMemoryError(f"{file.name}: truncated or damaged ({type(error).__name__})") from error
    if not good:
        raise RefusedMemoryError(f"{file.name}: is not what was written; restore it, or train anew")
    return found
