"""``sweep.jobs``: real processes side by side, which are killed, fail, and are asked to end."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import hydra
import pytest

from memlab.runs import command_line
from memlab.signals import TRY_AGAIN
from tests.conftest import REPOSITORY, SMOKE, Outcome
from tests.processes import FORKS, start, status_of
from tests.runs.jobs_of_a_sweep import FINE, KILLED, LONG, QUITTING, work
from tests.runs.test_mistakes import assert_one_line

needs_submitit = pytest.mark.skipif(
    find_spec("submitit") is None, reason='needs packages that are not there: pip install -e ".[sweeps]"'
)
CONF = str(REPOSITORY / "conf")


def sweep(*words: str, folder: Path, devices: Sequence[str] = ()) -> BaseProcess:
    """Start a sweep of jobs that take no second, as the leader of a process group."""
    process = FORKS.Process(target=_sweep, args=(words, folder, list(devices)))
    process.start()
    return process


def _sweep(words: tuple[str, ...], folder: Path, devices: list[str]) -> None:
    from memlab.runs import side_by_side

    os.setpgid(0, 0)
    os.chdir(folder)
    with Path("said.txt").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ.pop("OMP_NUM_THREADS", None)
    Path("temporary").mkdir()
    tempfile.tempdir = str(folder / "temporary")
    setattr(side_by_side, "_devices", lambda: devices)  # noqa: B010
    sys.argv = ["train.py", "-m", "hydra.sweep.dir=sweep", *words]
    command_line.run(hydra.main(version_base="1.3", config_path=CONF, config_name="config")(work), conf=CONF)


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def table(folder: Path) -> list[dict[str, Any]]:
    """What the table says, times apart."""
    with (folder / "sweep" / "sweep.csv").open(newline="") as file:
        return [{name: row[name] for name in row if name != "fit_seconds"} for row in csv.DictReader(file)]


@needs_submitit
def test_each_job_has_a_process_and_one_that_is_killed_costs_no_other(tmp_path: Path) -> None:
    seeds = [FINE, KILLED, QUITTING, 10 + FINE]
    words = ("seed=" + ",".join(map(str, seeds)), "sweep.jobs=2")
    assert status_of(sweep(*words, folder=tmp_path, devices=["5", "GPU-a1"])) == 1
    said = (tmp_path / "said.txt").read_text()
    facts = [json.loads((tmp_path / "sweep" / job / "facts.json").read_text()) for job in "03"]
    assert len({fact["process"] for fact in facts}) == 2
    cores = len(os.sched_getaffinity(0))
    assert {fact["OMP_NUM_THREADS"] for fact in facts} == {str(max(1, cores // 2))}
    assert facts[0]["CUDA_VISIBLE_DEVICES"] == "5"
    assert {fact["CUDA_VISIBLE_DEVICES"] for fact in facts} <= {"5", "GPU-a1"}
    rows = {row["job"]: row for row in table(tmp_path)}
    assert [rows[str(number)]["seed"] for number in range(4)] == list(map(str, seeds))
    assert [bool(rows[str(number)]["failure"]) for number in range(4)] == [False, True, True, False]
    assert "as when it is killed" in rows["1"]["failure"]
    assert "its last words: RuntimeError: the driver is gone" in rows["2"]["failure"]
    assert "sweep: 0 of 4 done; running: 0, 1\n" in said
    assert "sweep: 2 of 4 done; 2 failed\n" in said
    assert all(len(re.findall(r"\d+", running)) <= 2 for running in re.findall("running: (.*)", said))
    assert "says so" not in said
    assert not list((tmp_path / "temporary").iterdir())


@needs_submitit
@pytest.mark.parametrize("by_keyboard", [True, False])
def test_signal_ends_all_jobs_at_their_next_step(tmp_path: Path, by_keyboard: bool) -> None:
    process = sweep(f"seed={LONG},{10 + LONG},{FINE}", "sweep.jobs=2", folder=tmp_path)
    jobs = [tmp_path / "sweep" / str(number) for number in range(3)]
    wait_for(lambda: all((job / "began").is_file() for job in jobs[:2]))
    assert process.pid
    if by_keyboard:
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, signal.SIGTERM)
    assert status_of(process) == TRY_AGAIN
    assert all((job / "kept").is_file() for job in jobs[:2])
    assert not jobs[2].exists()
    said = (tmp_path / "said.txt").read_text()
    assert "Traceback" not in said
    name = "SIGINT" if by_keyboard else "SIGTERM"
    assert said.endswith(f"error: interrupted by {name}; go on with python train.py -m resume=sweep\n")


@needs_submitit
def test_jobs_end_at_their_next_step_when_the_sweep_is_killed(tmp_path: Path) -> None:
    process = sweep(f"seed={LONG},{10 + LONG}", "sweep.jobs=2", folder=tmp_path)
    jobs = [tmp_path / "sweep" / str(number) for number in range(2)]
    wait_for(lambda: all((job / "began").is_file() for job in jobs))
    process.kill()
    assert status_of(process) == -signal.SIGKILL
    wait_for(lambda: all((job / "kept").is_file() for job in jobs))


@needs_submitit
def test_table_of_jobs_side_by_side_is_that_of_one_after_another(tmp_path: Path) -> None:
    tables = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        words = ("-m", "support.size=100,0", *SMOKE, "baselines=[]", "hydra.sweep.dir=sweep", f"sweep.jobs={jobs}")
        assert status_of(start(*words, folder=folder)) == 1
        tables.append(table(folder))
    assert tables[0] == tables[1]
    assert [row["job"] for row in tables[1]] == ["0", "1"]
    assert tables[1][1]["failure"].startswith("support.size=0: must be a whole number of at least 1")


@needs_submitit
@pytest.mark.stress
def test_sweep_ended_and_gone_on_with_and_a_job_killed_comes_to_the_table_of_one_after_another(tmp_path: Path) -> None:
    words = [
        *("-m", "trainer.max_epochs=6", "baselines=[]", "figures=false", "trainer.enable_progress_bar=false"),
        *("optimizer.lr=1e-3,3e-3,1e-2", "support.size=100,300", "hydra.sweep.dir=sweep"),
    ]
    straight, disturbed = tmp_path / "straight", tmp_path / "disturbed"
    for folder in (straight, disturbed):
        folder.mkdir()
    assert status_of(start(*words, folder=straight)) == 0
    process, job = start(*words, "sweep.jobs=2", folder=disturbed), disturbed / "sweep" / "1"
    wait_for((job / "checkpoints" / "last.ckpt").is_file)
    process.terminate()
    assert status_of(process) == TRY_AGAIN
    process = start("-m", "resume=sweep", "sweep.jobs=3", folder=disturbed)
    wait_for(lambda: (job / ".in_use").is_file() and (job / ".in_use").read_text().startswith("process "))
    os.kill(int((job / ".in_use").read_text().split()[1]), signal.SIGKILL)
    assert status_of(process) == 1
    assert [row["job"] for row in table(disturbed) if row["failure"]] == ["1"]
    assert status_of(start("-m", "resume=sweep", folder=disturbed)) == 0
    assert table(disturbed) == table(straight)
    assert len(table(straight)) == 6


class TestMistake:
    @pytest.mark.parametrize("jobs", ["0", "x", "1.5"])
    def test_number(self, command: Callable[..., Outcome], jobs: str) -> None:
        outcome = command("-m", "seed=0,1", f"sweep.jobs={jobs}")
        assert_one_line(outcome, f"sweep.jobs={jobs}: must be a whole number of at least 1")

    def test_no_sweep(self, command: Callable[..., Outcome]) -> None:
        assert_one_line(command("sweep.jobs=2"), "sweep.jobs=2: is for sweeps, which are begun by python train.py -m")

    def test_packages_that_are_missing(self, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "submitit", None)
        outcome = command("-m", "seed=0,1", "sweep.jobs=2")
        assert_one_line(outcome, r'sweep.jobs=2: needs packages that are not there; pip install -e "\.\[sweeps\]"')
