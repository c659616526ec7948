"""Why a job of a sweep came to nothing, left in its folder for the report at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memlab.files import write_whole

FILE = "failed.json"


def note_failure(folder: Path, *, overrides: Sequence[str], reason: str) -> None:
    """Leave in the folder of a job why it failed, for the report at the end."""
    write_whole(folder / FILE, json.dumps({"overrides": list(overrides), "reason": reason}, indent=2) + "\n")


def read_failure(folder: Path) -> dict[str, Any]:
    """The ``overrides`` and the ``reason`` that `note_failure` left; a job can also have ended without a word."""
    file = folder / FILE
    if not file.is_file():
        return {"overrides": [], "reason": "ended without results"}
    failure: dict[str, Any] = json.loads(file.read_text())
    return failure
