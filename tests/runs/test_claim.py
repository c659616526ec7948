"""A folder belongs to one process at a time: real ones, that start at once, are stopped and are killed."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf

from memlab.runs.claim import FILE, FolderInUseError, claimed
from tests.conftest import REPOSITORY, SMOKE, Outcome
from tests.processes import FORKS, Kill, start, status_of

QUICK = (*SMOKE, "baselines=[]")
TOGETHER = "together"
"""A folder that is there when all may go on."""


def wait(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def leave_own_id(_: Any, folder: Path) -> float:
    """Stands for a training: waits until the others have started too, and leaves which process it was."""
    (folder / "process").write_text(str(os.getpid()))
    wait(Path.cwd().parent.joinpath(TOGETHER).exists)
    assert [path.name for path in sorted(folder.iterdir())] == [FILE, "process"]
    assert (folder / "process").read_text() == str(os.getpid())
    return 0.0


def started(root: Path, count: int, *words: str, training: Any = None) -> list[BaseProcess]:
    """As many processes, each in a folder of its own for what it says, all at once."""
    for number in range(count):
        (root / str(number)).mkdir()
    return [start(*words, folder=root / str(number), training=training) for number in range(count)]


def said_by(process: int, root: Path) -> str:
    return (root / str(process) / "said.txt").read_text()


FIFTY = """
import json, multiprocessing, os, sys
from pathlib import Path
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf
import memlab.runs.composition
from memlab.runs.claim import FolderInUseError, claimed

def claim_and_tell(template):
    folder = Path(OmegaConf.create({"folder": template}).folder)
    together.wait()
    try:
        with claimed(folder):
            told.put((os.getpid(), str(folder)))
            together.wait()
    except FolderInUseError as error:
        told.put((os.getpid(), str(error)))
        together.wait()

setup_globals()
fork = multiprocessing.get_context("fork")
together, told = fork.Barrier(50), fork.SimpleQueue()
processes = [fork.Process(target=claim_and_tell, args=sys.argv[1:]) for _ in range(50)]
for process in processes:
    process.start()
print(json.dumps([told.get() for _ in processes]))
for process in processes:
    process.join()
"""


def fifty_claims(template: str) -> dict[int, str]:
    """By process what fifty are told that claim a folder at the same moment, and hold it until all know."""
    done = subprocess.run([sys.executable, "-c", FIFTY, template], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_fifty_at_once_have_fifty_folders(tmp_path: Path) -> None:
    default = OmegaConf.load(REPOSITORY / "conf" / "config.yaml").hydra._get_node("run")._get_node("dir")._value()
    answers = fifty_claims(f"{tmp_path}/{default}")
    assert set(answers.values()) == {str(folder) for folder in (tmp_path / "outputs").iterdir()}
    assert len(set(answers.values())) == 50
    assert not [*tmp_path.rglob(FILE)]


def test_of_fifty_at_once_in_one_folder_one_has_it(tmp_path: Path) -> None:
    answers = fifty_claims(str(tmp_path / "run"))
    (owner,) = (process for process, answer in answers.items() if answer == str(tmp_path / "run"))
    others = {answer for process, answer in answers.items() if process != owner}
    assert all(
        re.match(f"{tmp_path}/run: is being worked in by (process {owner} on|another process)", each) for each in others
    )
    assert not [*(tmp_path / "run").iterdir()]


@pytest.mark.stress
def test_fifty_runs_at_once_have_fifty_folders(tmp_path: Path) -> None:
    processes = [start(*QUICK, folder=tmp_path) for _ in range(50)]
    assert [status_of(process) for process in processes] == [0] * 50
    folders = [*(tmp_path / "outputs").iterdir()]
    assert len(folders) == 50
    for folder in folders:
        assert json.loads((folder / "results.json").read_text())["overrides"] == [*QUICK]
        assert {"last.ckpt", "best.ckpt"} < {path.name for path in (folder / "checkpoints").iterdir()}
        assert (folder / "predictions.csv").read_bytes() == (folders[0] / "predictions.csv").read_bytes()


def test_of_three_started_at_once_in_one_folder_one_trains(tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = started(tmp_path, 3, f"hydra.run.dir={run}", training=leave_own_id)
    wait(lambda: sum(process.exitcode is not None for process in processes) == 2)
    owner = int((run / "process").read_text())
    (tmp_path / TOGETHER).mkdir()
    for number, process in enumerate(processes):
        assert status_of(process) == (0 if process.pid == owner else 1)
        refusal = f"error: {run}: is being worked in by process {owner} on {socket.gethostname()}; wait for its"
        assert said_by(number, tmp_path) == ("" if process.pid == owner else f"{refusal} end, or take another folder\n")
    assert [path.name for path in run.iterdir()] == ["process"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_run_that_another_process_works_in_is_not_touched(tmp_path: Path) -> None:
    first = start(*QUICK, "hydra.run.dir=run", folder=tmp_path, kill=Kill("on_test_start", 1, signal.SIGSTOP))
    assert_refused(first, tmp_path, "run", [("hydra.run.dir=run",), ("resume=run",), ("resume=run", "figures=true")])
    assert (tmp_path / "run" / "results.json").is_file()


def test_job_of_a_sweep_goes_on_in_one_process_alone(tmp_path: Path) -> None:
    words = ("-m", *QUICK, "support.size=50,100", "hydra.sweep.dir=sweep")
    first = start(*words, folder=tmp_path, kill=Kill("on_test_start", 2, signal.SIGSTOP))
    assert_refused(first, tmp_path, "sweep", [words, ("-m", "resume=sweep"), ("resume=sweep/1",)])


def assert_refused(first: BaseProcess, root: Path, name: str, commands: Sequence[tuple[str, ...]]) -> None:
    """See that while a process stands still others that are started in its folder say so and leave all as it is."""
    wait(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED)
    try:
        before, said = content(root / name), (root / "said.txt").read_text()
        for words in commands:
            assert status_of(start(*words, folder=root)) == 1
            refusal = (root / "said.txt").read_text().removeprefix(said)
            said += refusal
            assert re.fullmatch(rf"error: {root}/{name}\S*: is being worked in by process {first.pid} on .*\n", refusal)
        assert content(root / name) == before
    finally:
        os.kill(first.pid or 0, signal.SIGCONT)
        status = status_of(first)
    assert status == 0
    assert not [*(root / name).rglob(FILE)]


def test_job_whose_folder_is_taken_leaves_nothing_there(command: Callable[..., Outcome], tmp_path: Path) -> None:
    with held_by_another(tmp_path / "taken" / "0"):
        outcome = command("-m", *QUICK, "hydra.sweep.dir=taken")
        assert outcome.status == 1
        assert f"error: job 0: {tmp_path / 'taken' / '0'}: is being worked in by process " in outcome.err
        assert [path.name for path in (tmp_path / "taken" / "0").iterdir()] == [FILE]


def hold(folder: Path, is_held: Any, worker_too: bool) -> None:
    with claimed(folder):
        if worker_too:
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
        is_held.set()
        time.sleep(60)


@contextmanager
def held_by_another(folder: Path, *, worker_too: bool = False) -> Iterator[BaseProcess]:
    is_held = FORKS.Event()
    process = FORKS.Process(target=hold, args=(folder, is_held, worker_too))
    process.start()
    assert is_held.wait(60)
    workers = psutil.Process(process.pid).children()
    yield process
    process.kill()
    process.join()
    for worker in workers:
        worker.kill()


def test_claim_of_a_killed_process_does_not_stand_though_its_worker_lives(tmp_path: Path) -> None:
    with held_by_another(tmp_path, worker_too=True) as process:
        worker = psutil.Process(process.pid).children()[0]
        with pytest.raises(FolderInUseError, match=f"by process {process.pid} on "), claimed(tmp_path):
            pass
        process.kill()
        process.join()
        assert worker.is_running()
        with claimed(tmp_path):
            assert (tmp_path / FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not [*tmp_path.iterdir()]


def test_run_is_begun_where_one_was_killed_before_it_had_left_anything(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "run") as process:
        process.kill()
        process.join()
        assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]
        assert status_of(start("hydra.run.dir=run", folder=tmp_path, training=leave_nothing)) == 0


def leave_nothing(*_: Any) -> float:
    return 0.0


class TestWithoutLocks:
    """A file system that keeps none, as some of clusters: who has made the file has the folder."""

    @pytest.fixture(autouse=True)
    def without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lockf(*_: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "lockf", lockf)

    def test_first_has_the_folder(self, tmp_path: Path) -> None:
        with claimed(tmp_path):
            assert (tmp_path / FILE).is_file()
        assert not (tmp_path / FILE).exists()

    def test_second_is_told_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text("process 7 on node3")
        wanted = (
            f"{tmp_path}: is being worked in by process 7 on node3, or was .*; take away {tmp_path / FILE} if it was"
        )
        with pytest.raises(FolderInUseError, match=wanted), claimed(tmp_path):
            pass
        assert (tmp_path / FILE).read_text() == "process 7 on node3"


def test_claim_within_a_claim_of_the_same_process(tmp_path: Path) -> None:
    with claimed(tmp_path):
        with claimed(tmp_path):
            pass
        assert (tmp_path / FILE).is_file()
