"""How much the objects of each class count in the training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from memlab.checks import check_number


def weights_of_classes(class_weights: object, labels: Tensor, class_names: Sequence[str]) -> Tensor | None:
    """(C,) weights ``w_c = N r_c / sum_i r_{y_i}`` of ratios r, so that training objects weigh 1 in the mean.

    Args:
        class_weights: ``balanced`` for ``r_c = 1 / N_c``, so that all classes together weigh the same; or r_c by the
            names of classes, 1 for those that are not named; None for no weights.
        labels: (N,) class ids of the training objects.
        class_names: by class id.

    Raises:
        ValueError: for another word, a name that no class has, or a ratio that is not a number above 0.

    >>> weights_of_classes("balanced", torch.tensor([0, 0, 0, 1]), ["often", "seldom"])
    tensor([0.6667, 2.0000])
    >>> weights_of_classes({"seldom": 5}, torch.tensor([0, 0, 0, 1]), ["often", "seldom"])
    tensor([0.5000, 2.5000])
    """
    if class_weights is None:
        return None
    counts = labels.bincount(minlength=len(class_names)).double()
    if class_weights == "balanced":
        ratios = 1 / counts.clamp(min=1)
    elif isinstance(class_weights, Mapping):
        ratios = torch.ones_like(counts)
        for given, ratio in class_weights.items():
            if str(given) not in class_names:
                raise ValueError(f"class_weights.{given}: there is no such class; must be one of {_told(class_names)}")
            ratios[class_names.index(str(given))] = check_number(f"class_weights.{given}", ratio, above=0)
    else:
        raise ValueError(
            f"class_weights={class_weights}: must be balanced, null, or numbers above 0 by the names of classes, as"
            f" {{{class_names[0]}: 5}}"
        )
    return (ratios * counts.sum() / (ratios * counts).sum()).float()


def _told(class_names: Sequence[str], *, most: int = 10) -> str:
    more = f" and {len(class_names) - most} more" if len(class_names) > most else ""
    return ", ".join(class_names[:most]) + more
