"""``memlab doctor`` tells what there is, and what to do about packages that are broken, missing or bad."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

from memlab.runs import installation
from tests.conftest import REPOSITORY, Command


def test_of_a_good_installation_finds_nothing_wrong(
    memlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = memlab("doctor")
    assert (status, err) == (0, ""), out
    assert out.endswith("problems\n  none\n")
    for line in (
        r"torch +\d",
        r"processor +.*; [\d.]+ of \d+ cores may be used",
        r"memory +[\d.]+ GiB free",
        r"serve +",
    ):
        assert re.search(rf"^  {line}", out, re.MULTILINE), out
    assert f"working folder    {tmp_path}: " in out
    status, out, _ = memlab("doctor", "--json")
    assert [*json.loads(out)] == ["versions", "extras", "machine", "problems"]


def doctor(folder: Path) -> tuple[int, str, str]:
    """What it says where what is in the folder is found before what is installed."""
    done = subprocess.run(
        [sys.executable, "-m", "memlab", "doctor"],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def fake(folder: Path, name: str, *, version: str, module: str, content: str) -> None:
    """A package that is found there."""
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / f"{module}.py").write_text(content)


def test_of_broken_packages_tells_each(tmp_path: Path) -> None:
    fake(tmp_path, "torch", version="2.6.0+cpu", module="torch", content="raise OSError('libgomp.so.1 is not there')")
    fake(tmp_path, "torchvision", version="0.21.0", module="torchvision", content="raise RuntimeError('no\\n nms')")
    ran = f"open({str(tmp_path / 'ran')!r}, 'w')"
    fake(tmp_path, "pytorch-lightning", version="2.6.3", module="pytorch_lightning", content=ran)
    fake(tmp_path, "filelock", version="3.0", module="filelock", content="")
    status, out, err = doctor(tmp_path)
    _, problems = out.split("problems\n")
    assert (status, err) == (1, f"error: {len(problems.splitlines())} problems, told above\n")
    for line in (
        r"torch 2.6.0\+cpu: cannot be imported \(libgomp.so.1 is not there\); pip install --force-reinstall 'torch",
        r"torchvision 0.21.0: cannot be imported \(no nms\); it must be from where torch 2.6.0\+cpu is from; pip"
        " install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu",
        "pytorch-lightning 2.6.3: was uploaded by an attacker and runs their code; take it away",
        "filelock 3.0: must be .*>=3.12.*; pip install 'filelock",
    ):
        assert re.search(rf"^  \d+\. {line}", problems, re.MULTILINE), problems
    assert re.search("^  memory +not known .libgomp.so.1 is not there.", out, re.MULTILINE)
    assert not (tmp_path / "ran").exists()


def test_of_what_is_missing_tells_how_to_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = installation._version
    monkeypatch.setattr(installation, "_version", lambda name: None if name in ("rich", "faiss-cpu") else here(name))
    found = installation.inspect(tmp_path)
    (problem,) = found.problems
    assert re.fullmatch("rich: is missing; pip install 'rich.*'", problem)
    assert found.sections["extras"]["ann"] == 'lacks faiss-cpu: pip install -e ".[ann]"'
    assert "faiss-cpu" in found.sections["extras"]["dev"]  # which asks for that extra


def test_of_an_installed_memlab_is_read_what_was_noted_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_clone = {*installation._declared(installation.Installation())}
    monkeypatch.setattr(installation, "__file__", "/elsewhere/memlab/runs/installation.py")
    noted = Message()
    for extra, line in of_the_clone:
        noted["Requires-Dist"] = f"{line}; extra == '{extra}'" if extra else line
    monkeypatch.setattr(installation, "metadata", lambda _: noted)
    found = {(extra, line.partition(";")[0]) for extra, line in installation._declared(installation.Installation())}
    assert found == of_the_clone
