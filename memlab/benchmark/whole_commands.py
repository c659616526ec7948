"""Contenders that are commands: the life of a process, or the steps that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from memlab.benchmark.material import Call, Maker, Material
from memlab.benchmark.problem import OWN

BARE = "python -c pass"
"""As fast as a command in Python can be."""
PLAIN_LOOP = "plain loop"
UNGUARDED = ("-m", "memlab.runs.unguarded")
FIT_STEPS = 1500
"""Of a fit: ten seconds or so."""
TRAIN = Path(__file__).parents[2] / "train.py"
"""Beside the package in a clone; nowhere else, where a script of that name may be anybody's."""


def in_clone() -> bool:
    """Whether there is a train.py to be started."""
    return TRAIN.is_file()


def starts() -> dict[str, Maker]:
    """Commands that compute nothing, by name."""
    found = {
        BARE: _command("-c", "pass"),
        "python -c 'import torch'": _command("-c", "import torch"),
        f"{OWN} --help": _command("-m", OWN, "--help"),
        f"{OWN} report --help": _command("-m", OWN, "report", "--help"),
    }
    if in_clone():
        found["python train.py --help"] = _command(str(TRAIN), "--help")
        found["python train.py, misspelt"] = _command(str(TRAIN), "optimiser.lr=1", status=1)
    return found


def fits() -> dict[str, Maker]:
    """Trainings by name; each call gives the seconds of a step."""
    found: dict[str, Maker] = {PLAIN_LOOP: _plain_loop}
    if in_clone():
        found[f"{OWN} steps alone"] = _fit(f"trainer.check_val_every_n_epoch={10**6}")
        found[f"{OWN} with validations, checkpoints"] = _fit()
        found[f"{OWN} the same, unguarded"] = _fit(script=UNGUARDED)
    return found


def _command(*words: str, status: int = 0) -> Maker:
    def make(_: Material) -> Call:
        def call() -> None:
            output(*words, status=status)

        return call

    return make


def _plain_loop(_: Material) -> Call:
    return lambda: torch.tensor(float(output("-m", "memlab.benchmark.plain_loop", str(FIT_STEPS))))


def _fit(*options: str, script: tuple[str, ...] = ()) -> Maker:
    """``python train.py``, with nothing besides the training: no baseline, no figures; started by a script if given."""

    def make(_: Material) -> Call:
        def call() -> Tensor:
            with TemporaryDirectory() as parent:
                folder = Path(parent) / "run"
                length = f"trainer.default_steps={FIT_STEPS}"
                rest = ["trainer.enable_progress_bar=false", "baselines=[]", "figures=false", f"hydra.run.dir={folder}"]
                output(*script, str(TRAIN), length, *options, *rest)
                results = json.loads((folder / "results.json").read_text())
            sizes = results["sizes"]
            steps = results["epochs"] * -(-sizes["train"] // sizes["batch"])
            return torch.tensor(results["fit_seconds"] / steps, dtype=torch.float64)

        return call

    return make


def output(*words: str, status: int = 0) -> str:
    """What a command of Python prints."""
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if ended.returncode != status or "Traceback" in ended.stderr:
        raise RuntimeError(ended.stderr.strip().split("\n")[-1] or f"exit status {ended.returncode}")
    return ended.stdout
