"""Jobs that take no second: what they do follows from ``seed``. Imports little, as each process of a job imports it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from memlab import signals
from memlab.runs.results import write_results

FINE, KILLED, QUITTING, LONG = range(4)
TOLD = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def work(cfg: DictConfig) -> float | None:
    """Tell of the process; then end as `seed` says."""
    folder, kind = Path(HydraConfig.get().runtime.output_dir), cfg.seed % 10
    began = time.monotonic()
    print(f"job {folder.name} says so")
    if kind == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == QUITTING:
        print("RuntimeError: the driver is gone", file=sys.stderr)
        os._exit(3)
    if kind == LONG:
        (folder / "began").write_text(str(os.getpid()))
        _step_until_asked(folder)
    environment = {name: os.environ.get(name) for name in TOLD}
    facts = {"process": os.getpid(), "began": began, "ended": time.monotonic(), **environment}
    (folder / "facts.json").write_text(json.dumps(facts))
    write_results(folder, {"overrides": list(HydraConfig.get().overrides.task), "test/accuracy": 0.5})
    return float(cfg.seed)


def _step_until_asked(folder: Path) -> None:
    """As training does: a signal waits for the end of a step, which is then kept."""
    signals.put_off(True)
    for _ in range(600):
        time.sleep(0.1)
        if number := signals.noted():
            time.sleep(0.5)  # the rest of the step, in which a second signal is not waited for
            (folder / "kept").touch()
            signals.put_off(False)
            raise signals.Interrupted(number)
