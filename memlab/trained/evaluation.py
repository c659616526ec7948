"""What a trained memory is worth on labelled objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from memlab.functional import balanced_accuracy, brier, class_log_mass, macro_f1, nll
from memlab.trained.answer import Answer
from memlab.trained.calibration import calibration_error, numbers_of


def figures(answer: Answer, labels: Sequence[str]) -> dict[str, float]:
    """Figures by name, as those of a run's test, of n objects.

    ``accuracy`` and ``balanced_accuracy`` count objects of classes that the memory does not know as answered wrong;
    ``f1_macro``, ``nll``, ``brier`` and ``ece`` are over the others, ``ece`` with the temperature in use. With
    coverage, ``coverage`` is the share of the sets that hold the truth and ``set_size`` their mean size.

    Args:
        answer: to the objects.
        labels: (n,) names of their true classes.

    Raises:
        ValueError: if the numbers of both differ, or are 0.
    """
    if not len(answer) == len(labels) > 0:
        raise ValueError(f"labels: {len(labels)} of them for {len(answer)} objects; must be one for each")
    strangers = sorted(set(labels) - set(answer.classes))
    classes = [*answer.classes, *strangers]
    truth, answers = numbers_of(labels, classes), numbers_of(answer.labels, classes)
    right = truth == answers
    counts = [part.bincount(minlength=len(classes)) for part in (truth[right], truth, answers)]
    found: dict[str, float] = {
        "objects": len(labels),
        "unknown_classes": len(strangers),
        "accuracy": float(right.double().mean()),
        "balanced_accuracy": float(balanced_accuracy(counts[0], counts[1])),
    }
    known = truth < len(answer.classes)
    if known.any():
        seen = [part[: len(answer.classes)] for part in counts]
        scores = answer.class_scores.cpu()[known] / answer.view.temperature
        mass = class_log_mass(scores).exp()
        found |= {
            "f1_macro": float(macro_f1(seen[0], seen[1], seen[2])),
            "nll": float(nll(scores, truth[known]).mean()),
            "brier": float(brier(mass, truth[known]).mean()),
            "ece": calibration_error(mass, right[known]),
        }
    if answer.coverage is not None:
        held = [label in chosen for label, chosen in zip(labels, answer.sets, strict=True)]
        found["coverage"] = sum(held) / len(held)
        found["set_size"] = float(torch.tensor([len(chosen) for chosen in answer.sets]).double().mean())
    return found
