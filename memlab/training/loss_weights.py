"""How much the objects of each class, or the questions of each task, count in the training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from memlab.checks import check_number


def loss_weights(given: object, numbers: Tensor, names: Sequence[str], *, of: str = "class") -> Tensor | None:
    """(C,) weights ``w_c = N r_c / sum_i r_{y_i}`` of ratios r, so that what is trained on weighs 1 in the mean.

    Args:
        given: ``balanced`` for ``r_c = 1 / N_c``, so that all classes together weigh the same; or r_c by the names of
            classes, 1 for those that are not named; None for no weights.
        numbers: (N,) classes of the training objects.
        names: by number.
        of: what is called a class here, in what is said of ``given``.

    Raises:
        ValueError: for another word, a name that no class has, or a ratio that is not a number above 0.

    >>> loss_weights("balanced", torch.tensor([0, 0, 0, 1]), ["often", "seldom"])
    tensor([0.6667, 2.0000])
    >>> loss_weights({"seldom": 5}, torch.tensor([0, 0, 0, 1]), ["often", "seldom"])
    tensor([0.5000, 2.5000])
    """
    if given is None:
        return None
    parameter = f"{of}_weights"
    counts = numbers.bincount(minlength=len(names)).double()
    if given == "balanced":
        ratios = 1 / counts.clamp(min=1)
    elif isinstance(given, Mapping):
        ratios = torch.ones_like(counts)
        for name, ratio in given.items():
            if str(name) not in names:
                raise ValueError(f"{parameter}.{name}: there is no such {of}; must be one of {_told(names)}")
            ratios[names.index(str(name))] = check_number(f"{parameter}.{name}", ratio, above=0)
    else:
        raise ValueError(
            f"{parameter}={given}: must be balanced, null, or numbers above 0 by name of a {of}, as {{{names[0]}: 5}}"
        )
    return (ratios * counts.sum() / (ratios * counts).sum()).float()


def _told(names: Sequence[str], *, most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
