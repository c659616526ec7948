"""``python train.py WORDS`` in real processes that are forked from one which has imported everything: a second each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.processes", "train", "memlab.runs.job", "memlab.training.module"])


class Kill(NamedTuple):
    """A signal that a process sends itself, when Lightning calls a hook for the n-th time."""

    hook: str
    call: int
    number: int


def start(*words: str, folder: Path, kill: Kill | None = None, keyed: bool = True) -> BaseProcess:
    """Start training in a folder; what it says goes into ``said.txt`` there.

    Without ``keyed`` what is drawn is no function of seed, epoch and step, but follows from all that was drawn before.
    """
    process = FORKS.Process(target=_train, args=(words, folder, kill, keyed))
    process.start()
    return process


def status_of(process: BaseProcess) -> int:
    """Wait for the end; the exit status, or minus the signal that ended the process."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class Scarce:
    """Gives an encoder that cannot have memory for more than a hundred objects, once it has been called so often."""

    def __new__(cls, *, calls: int, **words: Any) -> Any:
        from torch import Tensor

        from memlab.encoders import MLP

        class ScarceMLP(MLP):
            left = calls

            def forward(self, x: Tensor) -> Tensor:
                self.left -= self.training
                if self.training and self.left < 0 and len(x) > 100:
                    raise RuntimeError("can't allocate memory: you tried to allocate more than there is")
                return super().forward(x)

        return ScarceMLP(**words)


def _train(words: tuple[str, ...], folder: Path, kill: Kill | None, keyed: bool) -> None:
    os.chdir(folder)
    with Path("said.txt").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    import torch

    import train

    multiprocessing.set_start_method("fork", force=True)  # for workers, which would else import all once more
    torch.set_num_threads(1)
    if kill is not None:
        _send_when_called(kill)
    if not keyed:
        _draw_in_turn()
    sys.argv = ["train.py", *words]
    train.command()


def _send_when_called(kill: Kill) -> None:
    from pytorch_lightning.trainer import call

    as_it_is, calls = call._call_callback_hooks, 0

    def counted(trainer: Any, hook_name: str, *arguments: Any, **words: Any) -> None:
        nonlocal calls
        calls += hook_name == kill.hook
        if hook_name == kill.hook and calls == kill.call:
            os.kill(os.getpid(), kill.number)
        as_it_is(trainer, hook_name, *arguments, **words)

    call._call_callback_hooks = counted


def _draw_in_turn() -> None:
    import torch

    from memlab.data.episodes import EpisodeDataset

    generator = torch.Generator().manual_seed(0)
    EpisodeDataset._generator = lambda *_: generator  # type: ignore[method-assign]
