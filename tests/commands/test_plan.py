"""``memlab plan``: an estimate of the run that the same words make, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, SMOKE, Command

RUN = """
import sys, train
from memlab.runs import job
from memlab.training.memory_plan import Planner
fit = job.fit
def planned(run):
    print("planned", Planner(run.model, run.datamodule, run.trainer).plan().peak)
    return fit(run)
job.fit = planned
train.command()
"""


def test_what_is_planned_is_what_the_run_measures_within_a_fifth(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    words = ["encoder=lenet", "support.size=1000", "datamodule.batch_size=128", "hydra.run.dir=run", *SMOKE]
    command = [sys.executable, "-c", RUN, *words, "baselines=[]"]
    out = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    (planned,) = (int(line.split()[1]) for line in out.splitlines() if line.startswith("planned"))
    measured = json.loads((tmp_path / "run" / "results.json").read_text())["peak_memory_bytes"]
    assert 0.8 * measured < planned < 1.2 * measured


def test_the_table_tells_the_parts_and_the_alternatives(memlab: Command) -> None:
    status, out, _ = memlab("plan", "memory=chunked", "memory.chunk_size=auto", "support.size=1000")
    assert status == 0
    title, _, *lines = out.splitlines()
    assert title.startswith("digits, conv encoder, chunked memory, 32-true, on ")
    assert title.endswith("B = 64, M = 1,000")
    assert [line[:22].rstrip() for line in lines[:7]] == [
        "held before training",
        "gradients, optimizer",
        "training step",
        "or evaluation",
        "the process besides",
        "estimated peak",
        "free",
    ]
    assert lines[6].endswith("it fits")
    assert "here taken to try chunks of up to 1,000" in lines[8]
    assert [line[:44].rstrip() for line in lines[11:]] == [
        "memory=chunked memory.chunk_size=250",
        "memory=chunked memory.chunk_size=64",
        "memory=topk",
    ]


def test_of_several_processes_each_has_its_share(memlab: Command) -> None:
    plans = [json.loads(memlab("plan", f"trainer.devices={n}", "support.size=1001", "--json")[1]) for n in (1, 3)]
    assert plans[1]["title"].endswith(", each of 3 processes: B = 64, M = 1,001")
    assert [plan["sizes"]["support"] for plan in plans] == [1001, 334]
    assert 0.25 < plans[1]["step"] / plans[0]["step"] < 0.6  # all queries, and a third of the support
    assert plans[1]["free"] < plans[0]["free"] / 2.5  # of what this machine has


def test_values_are_bytes_that_add_up(memlab: Command) -> None:
    status, out, _ = memlab("plan", "memory=topk", "--json")
    plan = json.loads(out)
    assert status == 0
    assert (plan["fits"], plan["advice"]) == (True, "")
    assert plan["sizes"] == {"queries": 64, "support": 1293, "at_once": 1293, "evaluated": 1000}
    parts = [plan[name] for name in ("process", "learned", "held")] + [max(plan["step"], plan["evaluation"])]
    assert sum(parts) == plan["needed"]
    assert plan["alternatives"].keys() == {
        "memory=chunked memory.chunk_size=1000",
        "memory=chunked memory.chunk_size=250",
        "memory=chunked memory.chunk_size=64",
        "memory=topk",
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["encoder=covn"], "encoder=covn: must be one of bag, conv, elman,"),
        (["suport.size=3"], "suport.size=3: there is no such parameter or group with the options chosen"),
        (["optimizer.lrr=3"], "optimizer.lrr=3: there is no such parameter or group with the options chosen; did you"),
        (["support.size=0"], "support.size=0: must be"),
        (["data=tensors"], "data.path: must be given"),
        (["resume=outputs/RUN"], "resume=outputs/RUN: a plan is of a run from its start; must be left out"),
        (["conv"], "Error parsing override 'conv'; missing EQUAL"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], told: str, memlab: Command) -> None:
    status, out, err = memlab("plan", *words)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {told}")
    assert len(err.splitlines()) == 1
