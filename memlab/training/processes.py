"""Training by several processes, on Lightning's strategy of DDP: what they add up, what they agree on, how they end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from subprocess import Popen, TimeoutExpired
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, distributed, nn

from memlab.memory.exchange import Processes
from memlab.signals import TRY_AGAIN

SECONDS_TO_END = 20
"""After another process is gone: as long as this one may take to notice by itself, and say so."""


class DriftError(ArithmeticError):
    """The processes have come to different weights."""


class SharedSupport(DDPStrategy):
    """Lightning's DDP of processes that share a support out (`memlab.memory.shards`).

    Torch's wrapper is left out: it averages gradients as they come, layer by layer, where here what every process has
    is a part of the gradient of the whole batch, and one may have no part in a parameter that another has. So gradients
    are *added up*, by one all-reduce in each step of the optimizer, when that step's backward is over.
    """

    def configure_ddp(self) -> None:
        """Leave the model as it is."""

    def post_backward(self, closure_loss: Tensor) -> None:
        """Add the gradients up, if the optimizer is to move by them."""
        super().post_backward(closure_loss)
        module = self.lightning_module
        assert module is not None
        if not module.trainer.fit_loop._should_accumulate():
            Processes.of().add_up([parameter for parameter in module.parameters() if parameter.requires_grad])

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)


def added_up(trainer: pl.Trainer, tensor: Tensor) -> Tensor:
    """The sum of what all processes have."""
    return _reduced(trainer, tensor, distributed.ReduceOp.SUM)


def largest(trainer: pl.Trainer, tensor: Tensor) -> Tensor:
    """The largest of what they have, entry by entry."""
    return _reduced(trainer, tensor, distributed.ReduceOp.MAX)


def _reduced(trainer: pl.Trainer, tensor: Tensor, how: Any) -> Tensor:
    if trainer.world_size > 1:
        tensor = tensor.detach().to(trainer.strategy.root_device, copy=True)
        distributed.all_reduce(tensor, how)
    return tensor


def greatest(trainer: pl.Trainer, *numbers: int) -> list[int]:
    """Of each number the greatest that any process has."""
    if trainer.world_size == 1:
        return list(numbers)
    found: list[int] = largest(trainer, torch.tensor(numbers)).tolist()
    return found


def check_alike(trainer: pl.Trainer, module: nn.Module) -> None:
    """See that all processes have the same weights, to the bit: what they add up would mean nothing.

    Raises:
        DriftError: if they have not.
    """
    if trainer.world_size == 1:
        return
    sums = [_bits(each).sum() for each in (*module.parameters(), *module.buffers())]
    both = torch.stack([torch.stack(sums), -torch.stack(sums)])
    if not torch.equal(largest(trainer, both), both):
        raise DriftError(
            "the processes have come to different weights; are all of the same machine, with the same versions?"
        )


def _bits(tensor: Tensor) -> Tensor:
    """Its bits as whole numbers, each times an odd number of its place; their sum goes round."""
    flat = tensor.detach().contiguous().flatten()
    found = flat.view(torch.int32 if flat.element_size() % 4 == 0 else torch.uint8).long()
    return found * (2 * torch.arange(len(found), device=found.device) + 1)


def was_lost(error: BaseException) -> bool:
    """Whether an exception says that another process does not answer."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)
    )


class Launcher(_SubprocessScriptLauncher):
    """Starts a process for every further device by the command that this one was started by, and sees to their end.

    None is left behind when another is gone: what hangs in a collective ends after some seconds. Processes that are
    started from outside, as by torchrun or SLURM, are seen to there.
    """

    _is_over = False

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the others, once, and call the function."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._call_children_scripts()
            _in_background(self._watch_others)
        elif isinstance(environment, LightningEnvironment) and environment.local_rank() > 0 and not self.procs:
            _in_background(_watch_parent, os.getppid())
        share_cores(self.num_processes)
        return function(*args, **kwargs)

    def fate(self) -> str:
        """Which of the others have ended otherwise than they should, in words; waits some seconds for it."""
        until = time.monotonic() + SECONDS_TO_END / 2
        while not (found := self._ended(TRY_AGAIN)) and time.monotonic() < until and self.procs:
            time.sleep(0.1)
        return ", ".join(f"rank {rank} {_fate(process)}" for rank, process in found.items())

    def end_others(self, *, wait: bool) -> None:
        """See the others end, whom nobody watches any more: by themselves if there is time to wait, or at once."""
        self._is_over = True
        for process in self.procs:
            with suppress(TimeoutExpired):
                process.wait(SECONDS_TO_END if wait else 0)
            process.kill()
            process.wait()

    def _ended(self, *statuses: int) -> dict[int, Popen[bytes]]:
        """Those that have failed, by rank, and those that have ended with one of some statuses."""
        as_they_should = {None, 0, TRY_AGAIN} - set(statuses)
        return {rank: each for rank, each in enumerate(self.procs, 1) if each.poll() not in as_they_should}

    def _watch_others(self) -> None:
        while not self._ended():
            if self._is_over:
                return
            time.sleep(0.5)
        time.sleep(SECONDS_TO_END)  # in which this process ends by itself, unless it hangs
        if not self._is_over:
            _end_at_once(f"{self.fate()}; the others were waiting for it")


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(SECONDS_TO_END)
    _end_at_once("rank 0 is gone")


def _end_at_once(why: str) -> None:
    print(f"error: {why}", file=sys.stderr, flush=True)
    os._exit(1)


def _in_background(do: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=do, args=args, daemon=True).start()


def _fate(process: Popen[bytes]) -> str:
    code = process.returncode
    return f"ended with status {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"


def share_cores(processes: int) -> None:
    """Let a process compute on its part of the cores, unless OMP_NUM_THREADS says on how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(torch.get_num_threads() // processes, 1))
