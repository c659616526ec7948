"""A run that does not fit says so before its first step, and what it advises fits; others say and change nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab import device
from memlab.runs import classification, memory_advice
from memlab.runs.memory_advice import largest
from memlab.runs.planning import prepared
from tests.conftest import SMOKE, Outcome

RUN = (*SMOKE, "encoder=resnet_small", "support.size=1000", "hydra.run.dir=run")
"""A step takes more than an evaluation by far."""


def leave(root: Path, mebibytes: int) -> None:
    """Make up a control group that has so much left, whatever is used."""
    (root / "proc" / "self").mkdir(parents=True, exist_ok=True)
    (root / "proc" / "self" / "cgroup").write_text("0::/job\n")
    folder = root / "sys" / "fs" / "cgroup" / "job"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {"memory.max": 2**40 + mebibytes * 2**20, "memory.current": 2**40}.items():
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text("inactive_file 0\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device, "ROOT", tmp_path / "root")
    return tmp_path / "root"


def fits(*words: str) -> bool:
    return prepared(words)[1].plan().fits


def warnings_of(outcome: Outcome) -> list[str]:
    lines = (outcome.folder / "run" / "train.log").read_text().splitlines()
    return [line.split(": ", 1)[1] for line in lines if " WARNING " in line]


def test_a_run_that_does_not_fit_says_what_to_lower_and_goes_on(command: Callable[..., Outcome], root: Path) -> None:
    leave(root, 100)
    outcome = command(*RUN)
    assert outcome.status == 0
    (line,) = warnings_of(outcome)
    assert re.fullmatch(
        r"memory: about \d+ MiB are needed besides what is held now, for the largest training step above all, and 100"
        r" MiB are free; lower it with memory=chunked memory.chunk_size=\d+, or support.size=\d+",
        line,
    )
    assert line in outcome.out
    for words in line.split("lower it with ")[1].split(", or "):
        assert fits(*RUN, *words.split()), words
        more = re.sub(r"\d+$", lambda size: str(round(1.15 * int(size[0]))), words)
        assert not fits(*RUN, *more.split()), more


@pytest.mark.parametrize(
    ("words", "left", "advice"),
    [
        (["memory=chunked", "memory.chunk_size=900", "support.size=1000"], 70, r"memory\.chunk_size=\d+"),
        (
            ["memory=chunked", "memory.chunk_size=100", "memory.activation_budget=1e9", "support.size=1200"],
            100,
            r"memory\.activation_budget=0 memory\.chunk_size=100",
        ),
        (["support=all"], 100, r"memory=chunked memory\.chunk_size=\d+, or support=uniform support\.size=\d+"),
        (["memory=prototypes", "support.size=1000"], 100, r"support\.size=\d+"),
        (["datamodule.batch_size=400"], 45, r"memory=chunked memory\.chunk_size=32 datamodule\.batch_size=\d+; and .*"),
        (["datamodule.batch_size=8", "support.size=16"], 50, r"datamodule\.eval_batch_size=\d+"),
    ],
)
def test_advice_fits(words: list[str], left: int, advice: str, root: Path) -> None:
    leave(root, left)
    run, planner = prepared(["encoder=resnet_small", *words])
    assert not planner.plan().fits
    given = memory_advice.advice(planner, support=run.facts["choices"]["support"])
    assert re.fullmatch(f"lower it with {advice}", given), given
    for way in given.removeprefix("lower it with ").replace("; and", "").split(", or "):
        replaced = {word.split("=")[0].split(".")[0] for word in way.split() if "." not in word.split("=")[0]}
        replaced |= {word.split("=")[0] for word in way.split()}
        kept = [word for word in words if not {word.split("=")[0], word.split(".")[0].split("=")[0]} & replaced]
        assert fits("encoder=resnet_small", *kept, *way.split()), way


def test_where_nothing_helps_it_says_so(root: Path) -> None:
    leave(root, 20)
    _, planner = prepared([])
    assert memory_advice.advice(planner, support="uniform") == (
        "weights, gradients and optimizer alone are too much: take a smaller encoder"
    )


def test_a_run_that_fits_says_nothing_and_is_the_same_to_the_bit(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("encoder.dropout=0.3", "memory=chunked", "memory.chunk_size=200", *SMOKE)
    planned = command(*words, "hydra.run.dir=run")
    monkeypatch.setattr(classification, "warn_if_too_large", str)
    without = command(*words, "hydra.run.dir=without")
    assert (planned.status, without.status) == (0, 0)
    assert warnings_of(planned) == []
    assert "memory: what" not in planned.out

    def weights(name: str) -> dict[str, torch.Tensor]:
        state: dict[str, Any] = torch.load(planned.folder / name / "checkpoints" / "last.ckpt", weights_only=True)
        return {**state["state_dict"], **state["optimizer_states"][0]["state"][0]}

    first, second = weights("run"), weights("without")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    figures = [json.loads((planned.folder / name / "results.json").read_text()) for name in ("run", "without")]
    assert figures[0]["test/nll"] == figures[1]["test/nll"]


def test_an_encoder_that_cannot_be_copied_is_trained_all_the_same(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "single.py").write_text(
        "from memlab.encoders import Linear\n"
        "class Single(Linear):\n"
        "    def __deepcopy__(self, memo):\n"
        "        raise TypeError('there is one of me')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = command(*SMOKE, "encoder=linear", "encoder._target_=single.Single")
    assert outcome.status == 0, outcome.err
    assert "memory: what the run takes was not estimated (TypeError: there is one of me)" in outcome.out


def test_largest() -> None:
    assert largest(lambda size: size <= 37, up_to=100) == 37
    assert largest(lambda size: size <= 3777, up_to=10_000) == 3700
    assert largest(lambda size: size > 0, up_to=512) == 510
    assert largest(lambda size: size < 0, up_to=512) == 0
