"""Jobs of a sweep that are behind the others end early."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMOKE, Outcome
from tests.runs.test_mistakes import assert_one_line

optuna = pytest.importorskip("optuna")

from memlab.runs.pruning import Pruning  # noqa: E402

MONITOR = "validation/nll"


def job(folder: Path, figures: list[float], *, ended: bool = True) -> Path:
    """What a job leaves: figures of training and of validation in one file."""
    folder.mkdir(parents=True)
    (folder.parent / "multirun.yaml").touch()
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", MONITOR])
        writer.writeheader()
        for step, figure in enumerate(figures):
            writer.writerow({"step": step, "train/loss": 9.0})
            writer.writerow({"step": step, MONITOR: figure})
    if ended:
        (folder / "results.json").write_text("{}")
    return folder


def is_behind(folder: Path, figures: list[float], *, mode: str = "min", others: int = 3) -> bool:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=others, n_warmup_steps=1)
    pruning = Pruning(folder=str(folder), monitor=MONITOR, mode=mode, pruner=pruner)
    pruning.load_state_dict({"figures": figures})
    found = pruning._others()
    return bool(found) and pruning._is_behind(found)


OTHERS = [[0.9, 0.5, 0.4], [0.8, 0.6, 0.5], [0.7, 0.7, 0.1], [0.6, 0.9, 0.3]]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("figures", [[0.9, 0.7], [0.7, 0.66], [0.64, 0.66], [2.0], [0.2, 0.2, 0.38], [0.9, 0.9, 0.3]])
def test_what_is_at_its_best_worse_than_the_median_is_behind(figures: list[float], sign: int, tmp_path: Path) -> None:
    for number, others in enumerate(OTHERS):
        job(tmp_path / str(number), [sign * figure for figure in others])
    job(tmp_path / "4", [sign * 0.0] * 3, ended=False)  # what is under way is no measure
    mine = job(tmp_path / "5", [])
    last = len(figures) - 1
    behind = last >= 1 and min(figures) > statistics.median(others[last] for others in OTHERS)
    assert is_behind(mine, [sign * figure for figure in figures], mode="min" if sign > 0 else "max") == behind


def test_of_too_few_others_none_is_behind(tmp_path: Path) -> None:
    for number in range(2):
        job(tmp_path / str(number), [0.1, 0.1])
    mine = job(tmp_path / "2", [0.1, 0.1])
    assert not is_behind(mine, [9.0, 9.0])  # itself is not among them, though it has ended before
    job(tmp_path / "3", [0.1, 0.1])
    assert is_behind(mine, [9.0, 9.0])


def test_a_job_that_learns_nothing_ends_early_and_is_tested(command: Callable[..., Outcome]) -> None:
    words = [word for word in SMOKE if word != "trainer=smoke"]
    words += ["encoder=linear", "trainer.max_epochs=5", "trainer.check_val_every_n_epoch=1", "scheduler=constant"]
    words += [
        "callbacks=pruning",
        "callbacks.pruning.pruner.n_startup_trials=2",
        "callbacks.pruning.pruner.n_warmup_steps=1",
    ]
    outcome = command("-m", "optimizer.lr=3e-3,4e-3,1e-7", *words)
    assert outcome.status == 0, outcome.err
    (sweep,) = outcome.run_folders
    found = [json.loads((sweep / number / "results.json").read_text()) for number in "012"]
    assert [each["epochs"] for each in found] == [5, 5, 2]
    assert 0 < found[2]["test/accuracy"] < found[0]["test/accuracy"]


def test_a_run_by_itself_has_no_others(command: Callable[..., Outcome]) -> None:
    assert_one_line(
        command("callbacks=pruning", *SMOKE), "callbacks.pruning: is for the jobs of a sweep, which are begun"
    )
