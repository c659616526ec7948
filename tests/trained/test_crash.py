"""A process that is killed while it changes a memory: what was acknowledged is there, what was forgotten is not."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import torch

from memlab.trained import TrainedMemory, load
from tests.trained.memories import bytes_on_disk, make, tables

KILLS = 12


def change_for_ever(folder: Path, seed: int, acknowledged: Path) -> None:
    """Make random changes, and write a line of each when it is made."""
    torch.set_num_threads(1)
    draw, memory = random.Random(seed), load(folder)
    with acknowledged.open("ab", buffering=0) as file:
        while True:
            if made := one_change(memory, draw):
                line = {**made, "change": memory.info["changes"], "digest": memory.digest}
                os.write(file.fileno(), json.dumps(line).encode() + b"\n")


def one_change(memory: TrainedMemory, draw: random.Random) -> dict[str, Any] | None:
    what = draw.choice(["add", "forget", "relabel", "undo"])
    some = draw.sample(memory._content.ids.tolist(), 2)
    if what == "add":
        rows = torch.randn(2, 5, generator=torch.Generator().manual_seed(draw.randrange(10**6)))
        return {"add": memory.add(rows, draw.choice(["ape", "new"]))}
    if what == "forget":
        return {"forget": memory.forget(some).ids}
    if what == "relabel":
        return {"relabel": list(memory.relabel(some, draw.choice(["bear", "other"])))}
    try:
        return {"undo": memory.undo()["change"]}
    except ValueError:  # nothing is left that can be taken back
        return None


def test_nothing_acknowledged_is_lost_and_nothing_forgotten_kept(tmp_path: Path) -> None:
    memory, draw = make(tmp_path / "m", tables(2000)), random.Random(0)
    keys = dict(zip(memory._content.ids.tolist(), memory._content.keys, strict=True))
    log = tmp_path / "acknowledged"
    log.touch()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["memlab.trained"])  # which takes seconds, and processes then start at once
    for kill in range(KILLS):
        before = log.stat().st_size
        process = processes.Process(target=change_for_ever, args=(tmp_path / "m", kill, log), daemon=True)
        process.start()
        while log.stat().st_size == before:
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.join()
        check(tmp_path / "m", [json.loads(line) for line in log.read_text().splitlines()], keys)
    assert len(log.read_text().splitlines()) > KILLS


def check(folder: Path, acknowledged: list[dict[str, Any]], keys: dict[int, torch.Tensor]) -> None:
    """Compare what is there with what was acknowledged.

    A change that was under way when the process was killed may have been made, and the next process goes on from there:
    then the acknowledged numbers have a gap.
    """
    memory = load(folder)
    last = acknowledged[-1]
    assert memory.info["changes"] in (last["change"], last["change"] + 1)
    journal = memory.journal()
    for line in acknowledged:
        assert journal[line["change"] - 1]["digest"] == line["digest"]
    assert journal[-1]["digest"] == memory.digest
    there, on_disk = set(memory._content.ids.tolist()), bytes_on_disk(folder)
    forgotten = {n for line in journal if line["what"] == "forget" for n in line["ids"]}
    undone = {line["of"] for line in journal if line["what"] == "undo"}
    added = {n for line in journal if line["what"] == "add" and line["change"] not in undone for n in line["ids"]}
    assert there == (keys.keys() | added) - forgotten
    assert not any(keys[n].numpy().tobytes() in on_disk for n in forgotten & keys.keys())
    assert not [file for file in folder.iterdir() if file.suffix == ".unfinished"]
    memory.predict(torch.zeros(1, 5))
