"""``python train.py WORDS`` in real processes that are forked from one which has imported everything: a second each."""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping
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

    def act(self) -> None:
        os.kill(os.getpid(), self.number)


class Limit(NamedTuple):
    """Bytes that no file of a process can go beyond, from when Lightning calls a hook for the n-th time."""

    hook: str
    call: int
    size: int

    def act(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


def start(
    *words: str,
    folder: Path,
    kill: Kill | None = None,
    limit: Limit | None = None,
    keyed: bool = True,
    training: Callable[[Any, Path], float] | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start training in a folder; what it says goes into ``said.txt`` there.

    Args:
        words: of the command.
        folder: to start it in.
        kill: a signal to itself.
        limit: a limit to the size of its files.
        keyed: else what is drawn is no function of seed, epoch and step, but follows from all that was drawn before.
        training: stands in for that of the run.
        environment: what its environment has besides.
    """
    process = FORKS.Process(target=_train, args=(words, folder, [kill, limit], keyed, training, environment or {}))
    process.start()
    return process


def start_together(
    world: int,
    *words: str,
    folder: Path,
    kills: Mapping[int, Kill] | None = None,
    training: Callable[[Any, Path], float] | None = None,
) -> list[BaseProcess]:
    """Start a run of several processes from outside, as torchrun does; see `start`.

    Args:
        world: how many.
        words: of the command.
        folder: to start it in.
        kills: signals to themselves, by rank.
        training: stands in for that of the run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alike = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    alike |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return [
        start(
            f"trainer.devices={world}",
            *words,
            folder=folder,
            kill=(kills or {}).get(rank),
            training=training,
            environment={**alike, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]


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


def _train(
    words: tuple[str, ...],
    folder: Path,
    events: list[Kill | Limit | None],
    keyed: bool,
    training: Callable[[Any, Path], float] | None,
    environment: Mapping[str, str],
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with Path("said.txt").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    import torch

    import train
    from memlab.runs import job

    multiprocessing.set_start_method("fork", force=True)  # for workers, which would else import all once more
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that it starts
    for event in events:
        if event is not None:
            _act_when_called(event)
    if not keyed:
        _draw_in_turn()
    if training is not None:
        setattr(job, "train", training)  # noqa: B010
    sys.argv = ["train.py", *words]
    train.command()


def _act_when_called(event: Kill | Limit) -> None:
    from pytorch_lightning.trainer import call

    as_it_is, calls = call._call_callback_hooks, 0

    def counted(trainer: Any, hook_name: str, *arguments: Any, **words: Any) -> None:
        nonlocal calls
        calls += hook_name == event.hook
        if hook_name == event.hook and calls == event.call:
            event.act()
        as_it_is(trainer, hook_name, *arguments, **words)

    call._call_callback_hooks = counted


def _draw_in_turn() -> None:
    import torch

    from memlab.data import episodes

    generator = torch.Generator().manual_seed(0)
    episodes.generator_of = lambda *_: generator
