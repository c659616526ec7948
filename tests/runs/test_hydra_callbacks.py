"""A command that cannot start takes away the folders that it made, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMOKE, Outcome

CANNOT_START = "support.size=0"
CANNOT_COMPOSE = "encoder=cnov"


def folders(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("mistake", [CANNOT_START, CANNOT_COMPOSE])
@pytest.mark.parametrize(
    ("before", "folder"),
    [
        ("mine", "mine"),
        ("mine", "mine/run"),
        ("mine/of/old", "mine/of/old/run"),
        ("mine", "mine/new/chain/run"),
        ("", "new/chain/run"),
        ("", "new/${hydra:runtime.choices.encoder}"),
    ],
)
def test_a_run_that_cannot_start(
    before: str, folder: str, mistake: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / before).mkdir(parents=True, exist_ok=True)
    found = folders(tmp_path)
    outcome = command(mistake, f"hydra.run.dir={folder}")
    assert outcome.status == 1
    assert len(outcome.err.splitlines()) == 1
    assert folders(tmp_path) == found


@pytest.mark.parametrize(("before", "folder"), [("mine", "mine"), ("mine/old", "mine/old/sweep"), ("", "new/chain")])
def test_a_sweep_that_cannot_be_composed(
    before: str, folder: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / before).mkdir(parents=True, exist_ok=True)
    found = folders(tmp_path)
    assert command("-m", "encoder=cnov,conv", f"hydra.sweep.dir={folder}").status == 1
    assert folders(tmp_path) == found


def test_a_sweep_in_the_folder_of_another_leaves_what_that_had(command: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "multirun.yaml").touch()
    assert command("-m", "encoder=cnov,conv", "hydra.sweep.dir=mine").status == 1
    assert folders(tmp_path) == {"mine", "mine/multirun.yaml"}


def test_a_folder_whose_last_part_cannot_be_made(command: Callable[..., Outcome], tmp_path: Path) -> None:
    assert command(*SMOKE, f"hydra.run.dir=new/chain/{300 * 'x'}").status == 1
    assert folders(tmp_path) == set()


def test_what_was_written_stays(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command(*SMOKE, "optimizer.lr=1e30", "trainer.limit_train_batches=4", "hydra.run.dir=new/run")
    assert outcome.status == 1
    assert (tmp_path / "new" / "run" / "config.yaml").is_file()
