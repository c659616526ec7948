"""Errors that others have published about questions over stories, in percent, and when a task is failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FAILED = 0.05
"""A task is failed whose error is above this, as the field has it (Weston et al. 2015)."""


@dataclass(frozen=True)
class Published:
    """A method's test error.

    Args:
        summary: the mean over the tasks and in brackets how many are failed, with the source.
        by_task: of each task, as far as known here.
    """

    summary: str
    by_task: Mapping[str, float] = field(default_factory=dict)


def _of_tasks(*errors: float) -> dict[str, float]:
    return {f"qa{number}": error for number, error in enumerate(errors, 1)}


_PUBLISHED = {
    ("memn2n", "bAbI 1k, tasks 1-20"): Published(
        "12.4 (11), best of 10 starts (Sukhbaatar et al. 2015)",
        _of_tasks(
            *(0.0, 11.4, 21.9, 13.4, 14.4, 2.8, 18.3, 9.3, 1.9, 6.5),
            *(0.3, 0.1, 0.2, 6.9, 0.0, 2.7, 40.4, 9.4, 88.0, 0.0),
        ),
    ),
    ("memn2n", "bAbI 10k, tasks 1-20"): Published("7.5 (6), best of 10 starts (Sukhbaatar et al. 2015)"),
    ("memnn", "bAbI 1k, tasks 1-20"): Published(
        "6.7 (4), each task alone (Weston et al. 2015)",
        _of_tasks(*(0, 0, 0, 0, 2, 0, 15, 9, 0, 2), *(0, 0, 0, 1, 0, 0, 35, 5, 64, 0)),
    ),
    ("memnn", "bAbI 10k, tasks 1-20"): Published("3.2 (2), each task alone (Weston et al. 2015)"),
    ("items", "bAbI 10k, tasks 1-20"): Published("1.34 ± 0.52, best of 8 0.78 (Schlag and Schmidhuber 2018)"),
}


def published_of(memory: str, data: str) -> Published | None:
    """What is known of a memory on some data; None for nothing.

    Args:
        memory: the option of its group.
        data: as runs name it; what was taken of a smaller set is left aside.
    """
    return _PUBLISHED.get((memory, data.split(" with ")[0]))
