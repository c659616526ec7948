"""Where in training a step is, and how it begins: with a seed of its own (`memlab.data.episodes.generator_of`)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from memlab import draws


def place_of_next_step(trainer: pl.Trainer | None) -> dict[str, int]:
    """Epochs done, and steps done of the epoch under way."""
    assert trainer is not None
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return {"epoch": epochs.processed, "step": batches.processed if epochs.started > epochs.processed else 0}


def begin_step(seed: int, device: torch.device, *, rank: int) -> None:
    """Begin the step, and seed the generators in use, which are for what is not drawn by object: by process, then.

    `torch.manual_seed` is slow on a CPU: it notes where, for devices that wake later.
    """
    draws.begin_step(seed)
    seed += rank
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
