"""``python -m memlab.runs.unguarded TRAIN WORDS``: ``python train.py WORDS`` without what it takes to survive.

No step is looked at for a loss or gradient that is not finite; checkpoints are kept by Lightning's own callbacks and
written by its own code, without checksum and without waiting for the disk. What that saves is what surviving costs.
"""

from __future__ import annotations

import runpy
import sys

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import TorchCheckpointIO

from memlab.training import trainer

OF_LIGHTNING = [
    word
    for name in ("best", "last")
    for word in (
        f"callbacks.{name}_checkpoint._target_=pytorch_lightning.callbacks.ModelCheckpoint",
        f"+callbacks.{name}_checkpoint.filename={name}",
    )
]


class _LooksAtNothing(pl.Callback):
    def __init__(self, **_: object) -> None:
        pass


if __name__ == "__main__":
    vars(trainer).update(NonFinite=_LooksAtNothing, CheckpointFiles=TorchCheckpointIO)
    script, *words = sys.argv[1:]
    sys.argv = [script, *words, *OF_LIGHTNING, "~callbacks.last_checkpoint.every_minutes"]
    runpy.run_path(script, run_name="__main__")
