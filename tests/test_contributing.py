"""What CONTRIBUTING says works: its examples are trained, swept and reported, from a file outside memlab."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memlab.__main__ import main
from tests.conftest import REPOSITORY, SMOKE, Outcome

CONTRIBUTING = (REPOSITORY / ".github" / "CONTRIBUTING.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", CONTRIBUTING, re.S)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", CONTRIBUTING, re.S) for line in block.splitlines()]

TRAINING = [text for text in COMMANDS if text.startswith("python train.py")]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples in one file, in the folder where the command is typed."""
    (tmp_path / "mine.py").write_text("\n\n".join(CODE))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize("text", [text for text in TRAINING if " -m " not in text])
def test_examples_train(text: str, command: Callable[..., Outcome]) -> None:
    outcome = command(*text.split()[2:], *SMOKE)
    assert outcome.status == 0, outcome.err
    choices = json.loads((outcome.run_folders[0] / "results.json").read_text())["choices"]
    (named,) = re.findall(r"(\w+)\._target_=(\S+)", text)
    assert choices[named[0]] == named[1]
    if named[0] in {"encoder", "memory"}:
        first_cells = (line.split("│")[1] for line in outcome.out.splitlines() if line.count("│") > 1)
        assert f"{named[1]} {named[0]}" in " ".join(" ".join(first_cells).split())


def test_an_encoder_of_ones_own_is_swept_and_reported(command: Callable[..., Outcome], tmp_path: Path) -> None:
    (text,) = [text for text in TRAINING if " -m " in text]
    outcome = command(*text.split()[2:], *SMOKE)
    assert outcome.status == 0, outcome.err
    assert main(["report", "outputs", "--output", str(tmp_path / "report")]) == 0
    rows = (tmp_path / "report" / "report.csv").read_text()
    assert rows.count("mine.Fourier encoder, full memory, +encoder.waves=64, optimizer.lr=0.001") == 1
    assert rows.count("mine.Fourier encoder") == 4


def test_a_class_that_there_is_not_is_one_line(command: Callable[..., Outcome]) -> None:
    outcome = command("encoder._target_=mine.Wave", *SMOKE)
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert "mine.Wave" in line
    assert not outcome.run_folders


def test_checks_named_are_those_of_ci() -> None:
    steps = re.findall(r"^step '(.*)'$", (REPOSITORY / ".ci" / "run").read_text(), re.M)
    assert COMMANDS[3] == " && ".join(steps[2:])
    assert ".ci/run" in (REPOSITORY / ".github" / "workflows" / "checks.yml").read_text()
