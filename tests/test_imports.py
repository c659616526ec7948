"""What may import what beyond the contracts that lint-imports checks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_pure_modules_import_without_lightning_and_hydra() -> None:
    (contract,) = [contract for contract in CONTRACTS if contract["name"].startswith("only training knows Lightning")]
    forbidden = tuple(contract["forbidden_modules"])
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
for name in {contract["source_modules"]!r}:
    __import__(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("train.py --help", 0),
        ("train.py encoder=cnov", 1),
        ("train.py encoder.kernal_size=3", 1),
        ("train.py +sizes=3", 1),
        ("train.py monitor=test/accuracy", 1),
        ("-m memlab --help", 0),
        ("-m memlab report --help", 0),
        ("-m memlab bench --help", 0),
        ("-m memlab bench-tables --help", 0),
        ("-m memlab predict --help", 0),
        ("-m memlab serve --help", 0),
    ],
)
def test_what_needs_no_data_imports_nothing_heavy(words: str, status: int, tmp_path: Path) -> None:
    """Not even numpy: these answer at once."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'pytorch_lightning', 'matplotlib', 'numpy', 'sklearn', 'rich'}:\n"
        "            raise AssertionError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": paths, "HYDRA_FULL_ERROR": ""}
    first, *rest = words.split()
    script = str(REPOSITORY / first) if first == "train.py" else first
    run = subprocess.run([sys.executable, script, *rest], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == status, run.stderr
    assert "Traceback" not in run.stderr
    assert not status or run.stderr.startswith("error: ")
    assert not (tmp_path / "outputs").exists()
