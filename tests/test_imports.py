"""What may import what beyond the contracts that lint-imports checks."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from tests.conftest import REPOSITORY

CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_pure_modules_import_without_lightning_and_hydra() -> None:
    (contract,) = [contract for contract in CONTRACTS if contract["type"] == "forbidden"]
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
