"""A process that ends while it changes a memory: what was acknowledged is there, what was forgotten is not.

Those that are killed are forked by a process that has imported everything, so that there can be many.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from memlab.__main__ import main
from memlab.trained import TrainedMemory, load
from memlab.trained.folder import JOURNAL, LOCK, MANIFEST
from tests.trained.file_operations import disk_is_full, disturbed, is_read_only, killed
from tests.trained.memories import bytes_on_disk, make, tables

SEQUENCES = int(os.environ.get("MEMLAB_CRASHES", "10"))
"""Random sequences of changes that end in a kill; more of them find what is rare."""
ROWS = torch.randn(2, 5, generator=torch.Generator().manual_seed(5))
Change = Callable[[TrainedMemory], object]
CHANGES: dict[str, tuple[Change, Change]] = {
    "add": (lambda _: None, lambda memory: memory.add(ROWS, ["ape", "new"])),
    "forget": (lambda _: None, lambda memory: memory.forget([3, 1030])),
    "relabel": (lambda _: None, lambda memory: memory.relabel([3, 1030], "other")),
    "undo add": (lambda memory: memory.add(ROWS, ["ape", "new"]), lambda memory: memory.undo()),
    "undo relabel": (lambda memory: memory.relabel([3, 4], "other"), lambda memory: memory.undo()),
    "calibrate": (lambda _: None, lambda memory: memory.calibrate()),
}
"""What is done beforehand, and the change."""


@pytest.fixture(scope="module")
def forking() -> Iterator[ProcessPoolExecutor]:
    """A process with one thread, that others can be forked from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of two small files of objects."""
    return make(tmp_path_factory.mktemp("whole") / "m", tables(1300), without=range(30, 1010)).folder


def forked(work: Callable[[], object]) -> int:
    """The id of a process that does some work."""
    if child := os.fork():
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def keys_of(memory: TrainedMemory) -> dict[int, bytes]:
    content = memory._content
    return {n: key.numpy().tobytes() for n, key in zip(content.ids.tolist(), content.keys, strict=True)}


def files(folder: Path) -> dict[str, bytes]:
    """All files but those that may have grown."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in (JOURNAL, LOCK)}


def state(memory: TrainedMemory) -> tuple[str, float, int]:
    return memory.digest, memory.info["temperature"], memory.info["changes"]


def check_whole(folder: Path, keys: dict[int, bytes]) -> TrainedMemory:
    """Open what is left: it fits itself, what it does not hold is nowhere in it, and it can be changed.

    Args:
        folder: of the memory.
        keys: of objects that it holds or held, by id.
    """
    with FileLock(folder / LOCK, timeout=0):
        pass
    memory = load(folder)
    assert {file.name for file in folder.iterdir()} - {JOURNAL, LOCK} == {*memory._manifest.files, MANIFEST}
    journal, on_disk, there = memory.journal(), bytes_on_disk(folder), set(memory._content.ids.tolist())
    assert [line["change"] for line in journal] == list(range(1, memory.info["changes"] + 1))
    assert not journal or journal[-1]["digest"] == memory.digest
    forgotten = {n for line in journal if line["what"] == "forget" for n in line["ids"]}
    undone = {line["of"] for line in journal if line["what"] == "undo"}
    taken_back = {n for line in journal if line["change"] in undone and line["what"] == "add" for n in line["ids"]}
    assert not there & (forgotten | taken_back)
    assert all((key in on_disk) is (n in there) for n, key in keys.items())
    memory.predict(torch.zeros(1, 5))
    return memory


@pytest.mark.parametrize("name", CHANGES)
def test_a_kill_at_any_operation_leaves_a_change_whole_or_not_at_all(
    name: str, folder: Path, forking: ProcessPoolExecutor, tmp_path: Path
) -> None:
    outcomes = forking.submit(kill_at_every_operation, folder, name, tmp_path).result()
    assert len(outcomes) > 15
    assert outcomes == sorted(outcomes, reverse=True)  # not made, then made
    assert set(outcomes) == {"made", "not made"}


def kill_at_every_operation(folder: Path, name: str, tmp_path: Path) -> list[str]:
    """Whether the change was made, by the operation that the process was killed at."""
    prepare, change = CHANGES[name]
    before, after, killed_at = tmp_path / "before", tmp_path / "after", tmp_path / "killed"
    shutil.copytree(folder, before)
    prepare(load(before))
    shutil.copytree(before, after)
    keys = keys_of(load(before))
    change(load(after))
    keys |= keys_of(load(after))
    wanted = {state(load(before)): "not made", state(load(after)): "made"}

    def work() -> None:
        memory = load(killed_at)
        with disturbed(len(outcomes) + 1, killed):
            change(memory)

    outcomes: list[str] = []
    status: int = signal.SIGKILL
    while status:
        shutil.rmtree(killed_at, ignore_errors=True)
        shutil.copytree(before, killed_at)
        _, status = os.waitpid(forked(work), 0)
        assert status in (0, signal.SIGKILL)
        memory = check_whole(killed_at, keys)
        outcomes.append(wanted[state(memory)])
        if outcomes[-1] not in outcomes[:-1]:
            memory.relabel(9, "ape")
            assert state(load(killed_at)) == state(memory)
    return outcomes


def test_nothing_acknowledged_is_lost_and_nothing_forgotten_kept(
    folder: Path, forking: ProcessPoolExecutor, tmp_path: Path
) -> None:
    counts = [forking.submit(random_sequence, folder, seed, tmp_path).result() for seed in range(SEQUENCES)]
    assert sum(counts) > 2 * SEQUENCES  # several before most kills


def random_sequence(folder: Path, seed: int, tmp_path: Path) -> int:
    """Changes at random until the process is killed at a random moment; how many were acknowledged."""
    here = tmp_path / f"{seed}"
    shutil.copytree(folder, here)
    keys, draw, moment = keys_of(load(here)), random.Random(seed), random.Random(-seed - 1)
    reading, writing = os.pipe()

    def work() -> None:
        memory = load(here)
        while True:
            if made := one_change(memory, draw):
                line = {**made, "change": memory.info["changes"], "digest": memory.digest}
                os.write(writing, json.dumps(line).encode() + b"\n")

    child = forked(work)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        lines = [told.readline() for _ in range(moment.randint(1, 8))]
        time.sleep(moment.uniform(0, 0.03))  # a change takes about as long
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        lines += told.readlines()
    check_acknowledged(here, [json.loads(line) for line in lines], keys)
    shutil.rmtree(here)
    return len(lines)


def one_change(memory: TrainedMemory, draw: random.Random) -> dict[str, Any] | None:
    what = draw.choice(["add", "forget", "relabel", "undo"])
    some = draw.sample(memory._content.ids.tolist(), 2)
    if what == "add":
        rows = torch.randn(2, 5, generator=torch.Generator().manual_seed(draw.randrange(10**6)))
        ids = memory.add(rows, draw.choice(["ape", "new"]))
        keys = keys_of(memory)
        return {"what": what, "keys": {n: keys[n].hex() for n in ids}}
    if what == "forget":
        return {"what": what, "ids": memory.forget(some).ids}
    if what == "relabel":
        return {"what": what, "ids": list(memory.relabel(some, draw.choice(["bear", "other"])))}
    try:
        return {"what": what, "of": memory.undo()["change"]}
    except ValueError:  # nothing is left that can be taken back
        return None


def check_acknowledged(folder: Path, acknowledged: list[dict[str, Any]], keys: dict[int, bytes]) -> None:
    """A change that was under way when the process was killed may have been made, and no more than one."""
    keys = keys | {int(n): bytes.fromhex(key) for line in acknowledged for n, key in line.get("keys", {}).items()}
    memory = check_whole(folder, keys)
    assert memory.info["changes"] - acknowledged[-1]["change"] in (0, 1)
    journal = memory.journal()
    for line in acknowledged:
        noted = journal[line["change"] - 1]
        assert (noted["what"], noted["digest"]) == (line["what"], line["digest"])
        assert noted.get("ids") == line.get("ids", [int(n) for n in line["keys"]] if "keys" in line else None)


@pytest.mark.parametrize(
    ("name", "happens"), [*((name, disk_is_full) for name in CHANGES), ("add", is_read_only), ("forget", is_read_only)]
)
def test_what_cannot_be_written_is_refused_and_changes_nothing(
    name: str, happens: Callable[[str], None], folder: Path, tmp_path: Path
) -> None:
    prepare, change = CHANGES[name]
    shutil.copytree(folder, tmp_path / "before")
    prepare(load(tmp_path / "before"))
    at, refused = 0, ""
    while True:
        at += 1
        here = shutil.copytree(tmp_path / "before", tmp_path / f"{at}")
        memory = load(here)
        before, there = state(memory), files(here)
        try:
            with disturbed(at, happens):
                change(memory)
        except ValueError as error:
            refused = str(error)
        else:
            break
        why = "No space left on device" if happens is disk_is_full else "Read-only file system"
        assert refused.startswith(f"{here}: ")
        assert f"({why})" in refused
        assert "\n" not in refused
        if ": cannot be changed" in refused:
            assert state(memory) == before
            assert happens is is_read_only or files(here) == there
            assert state(load(here)) == before
            assert files(here) == there  # what could not be taken away is gone when it is opened again
        else:
            assert ": is changed, but what it held before cannot be taken off the disk" in refused
            assert state(load(here))[2] == before[2] + 1
            memory.relabel(9, "ape")
            assert memory.info["changes"] == before[2] + 2
        shutil.rmtree(here)
    assert at > 10
    assert state(memory) == state(load(here))
    assert "is changed, but" in refused  # the last that can fail is to take away what is no longer needed


@pytest.mark.parametrize("at", [1, 5])
def test_a_command_tells_it_in_one_line(
    at: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = shutil.copytree(folder, tmp_path / "m")
    with disturbed(at, disk_is_full):
        assert main(["relabel", str(here), "--ids", "3", "--label", "new"]) == 1
    assert capsys.readouterr().err == (
        f"error: {here}: cannot be changed (No space left on device){'; it is as it was' if at > 1 else ''}\n"
    )
