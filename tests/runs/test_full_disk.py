"""A disk that is full, whatever does not fit onto it: a line, nothing lost, and the run goes on when there is room."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memlab.training.checkpoint_files import read_checkpoint
from tests.conftest import SMOKE, Outcome
from tests.processes import Limit, start, status_of
from tests.runs.test_resume import differences, outcome

RUN = (
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=2",
    "encoder=linear",
    "encoder.embedding_size=8",
    "data.train_fraction=0.3",
    "baselines=[]",
    "hydra.run.dir=run",
)
PAGE = 4096


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert status_of(start(*RUN, "figures=false", folder=folder)) == 0, (folder / "said.txt").read_text()
    return outcome(folder)


def assert_ended_by(why: str, folder: Path) -> re.Match[str]:
    """See that all that was said of an error is one line, and that no checkpoint was left that is not good."""
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said
    assert said.count("rror") == said.count("error: ") == 1
    assert said.splitlines()[-1].startswith("error: ")
    match = re.fullmatch(rf"error: {folder}/run/(\S+): {why}; make room, then (.*)", said.splitlines()[-1])
    assert match, said
    for path in (folder / "run").rglob("*.ckpt"):
        read_checkpoint(path)
    assert not [*(folder / "run").rglob("*.unfinished")]
    assert not (folder / "run" / "results.json").exists()
    return match


@pytest.mark.parametrize(
    ("hook", "call", "size", "file"),
    [
        ("on_train_batch_start", 3, 10_000, "checkpoints/best.ckpt"),
        ("on_train_epoch_end", 2, 10_000, "checkpoints/best.ckpt"),
        ("on_test_start", 1, 10_000, "predictions.csv"),
    ],
)
def test_file_that_may_be_no_larger(
    tmp_path: Path, undisturbed: dict[str, Any], hook: str, call: int, size: int, file: str
) -> None:
    assert status_of(start(*RUN, "figures=false", folder=tmp_path, limit=Limit(hook, call, size))) == 1
    match = assert_ended_by("File too large", tmp_path)
    assert match.groups() == (file, "go on with python train.py resume=run")
    assert status_of(start("resume=run", folder=tmp_path)) == 0, (tmp_path / "said.txt").read_text()
    assert differences(undisturbed, outcome(tmp_path)) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Makes the run folder a disk of so many pages; called again it has another size."""
    folder, mounted = tmp_path / "run", False

    def of(pages: int) -> None:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={pages * PAGE}"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted: {done.stderr.decode().strip()}")
        mounted = True

    if sys.platform != "linux":
        pytest.skip("tmpfs is of Linux")
    yield of
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param(pages, marks=[] if pages in (11, 40) else [pytest.mark.stress])
        for pages in (*range(1, 61), *range(65, 235, 5))
    ],
)
def test_disk_that_is_full(tmp_path: Path, undisturbed: dict[str, Any], disk: Callable[..., None], pages: int) -> None:
    disk(pages)
    assert status_of(start(*RUN, folder=tmp_path)) == 1
    match = assert_ended_by("No space left on device", tmp_path)
    print(match[1])  # for those who want to know which file it was
    disk(1000)
    words = RUN if match[2] == "start it again" else (match[2].removeprefix("go on with python train.py "),)
    assert status_of(start(*words, folder=tmp_path)) == 0, (tmp_path / "said.txt").read_text()
    assert differences(undisturbed, outcome(tmp_path)) == []
    assert (tmp_path / "run" / "figures" / "evidence.html").is_file()


def test_job_that_finds_no_room_is_gone_on_with_by_its_sweep(
    tmp_path: Path, command: Callable[..., Outcome], disk: Callable[..., None]
) -> None:
    disk(20)
    outcome = command("-m", *SMOKE, "baselines=[]", "encoder=linear", "hydra.sweep.dir=run")
    assert outcome.status == 1
    assert "Traceback" not in outcome.out + outcome.err
    assert re.search(
        rf"job 0 failed: {tmp_path}/run/0/\S+: No space left on device; make room, then go on with python train.py -m"
        " resume=run\n",
        outcome.out,
    )
    disk(1000)
    outcome = command("-m", "resume=run")
    assert outcome.status == 0, outcome.err


def test_what_is_in_the_log_is_told_by_its_name(command: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").symlink_to("/dev/full")
    outcome = command(*SMOKE, "hydra.run.dir=run")
    assert outcome.status == 1
    assert outcome.err == (
        f"error: {tmp_path}/run/train.log: No space left on device; make room, then go on with python train.py"
        " resume=run\n"
    )
