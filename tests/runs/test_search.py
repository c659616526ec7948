"""``experiment=search`` and ``hydra/launcher=slurm``: packages of others, put together as the configuration says."""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import hydra
import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from tests.conftest import REPOSITORY, SMOKE, Outcome
from tests.runs.test_mistakes import assert_one_line

CONF = str(REPOSITORY / "conf")
MISSING = 'needs packages that are not there: pip install -e ".[sweeps]"'
needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason=MISSING)
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason=MISSING)


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@needs_optuna
def test_search_finds_what_does_best_in_validation_goes_on_and_passes_over_failures(
    command: Callable[..., Outcome],
) -> None:
    words = ("experiment=search", "sweep.trials=4", "support.size=choice(100,200,0)", "encoder=linear")
    outcome = command("-m", *words, *SMOKE)
    assert outcome.status == 1  # as trials failed
    (sweep,) = outcome.run_folders
    failed = [row["support.size"] for row in rows_of(sweep) if row["failure"]]
    assert set(failed) == {"0"}
    found = rows_of(sweep)[: -len(failed)]
    scores = [float(row["validation/nll"]) for row in found]
    assert scores == sorted(scores)
    assert len(found) > 1
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == pytest.approx(scores[0])
    assert float(found[0]["optimizer.lr"]) == best.best_params["optimizer.lr"]
    assert "sweep, best validation/nll first" in outcome.out
    again = command("-m", f"resume={sweep}", "sweep.trials=5")
    assert again.status == 1
    assert "Failed experiment" in again.out
    assert all(row in rows_of(sweep) for row in found)
    assert len(rows_of(sweep)) == 5


@needs_optuna
def test_search_without_a_trial_that_ends_says_so(command: Callable[..., Outcome]) -> None:
    outcome = command("-m", "experiment=search", "sweep.trials=1", "data.train_fraction=7", *SMOKE)
    assert outcome.status == 1
    assert outcome.err.endswith("error: no trial came to its end; failed.json in the folder of each tells why\n")


@needs_optuna
@pytest.mark.parametrize(
    ("monitor", "direction"), [("validation/nll", "minimize"), ("validation/accuracy", "maximize")]
)
def test_direction_is_that_of_the_monitor(monitor: str, direction: str) -> None:
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        cfg = hydra.compose("config", ["experiment=search", f"monitor={monitor}"], return_hydra_config=True)
    assert cfg.hydra.sweeper.direction == direction


@needs_submitit
def test_jobs_of_slurm_are_composed(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    Plugins.instance()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        words = ["hydra/launcher=slurm", "hydra.launcher.partition=night"]
        launcher = hydra.compose("config", words, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith(".SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.partition) == (1, "night")
    monkeypatch.setenv("PATH", "")
    assert_one_line(command("-m", "hydra/launcher=slurm"), "hydra/launcher=slurm: there is no SLURM here")


@pytest.mark.skipif(find_spec("optuna") is not None, reason="the packages are there")
@pytest.mark.parametrize(
    ("word", "option"),
    [("experiment=search", "hydra/sweeper/validation"), ("hydra/launcher=slurm", "hydra/launcher/slurm")],
)
def test_packages_that_are_missing(command: Callable[..., Outcome], word: str, option: str) -> None:
    assert_one_line(command("-m", word), rf'{option}: needs packages that are not there; pip install -e "\.\[sweeps\]"')
