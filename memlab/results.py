"""What a run found: ``results.json``, written last and whole or not at all, and the closing table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

FILE = "results.json"
PACKAGES = ["memlab", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "scikit-learn"]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write ``results.json`` into a run folder in one move, so that the file's presence means the run is complete."""
    unfinished = folder / f".{FILE}.unfinished"
    with unfinished.open("w") as file:
        json.dump(results, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / FILE)


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results of a run folder, or None if the run did not come to its end."""
    file = folder / FILE
    if not file.is_file():
        return None
    results: dict[str, Any] = json.loads(file.read_text())
    return results


def results_table(results: Mapping[str, Any], *, classifier: str) -> Table:
    """Accuracy, NLL and calibration error of the classifier, and the baselines on the same split beside it.

    Args:
        results: as in ``results.json``.
        classifier: what was trained, in a few words.
    """
    sizes = results["sizes"]
    table = Table(
        title=f"{results['data']}: {sizes['test']:,} test objects, {sizes['train']:,} training objects"
        f"{' as memory' if sizes['support'] else ''}, seed {results['seed']}",
        caption=f"best of {results['epochs']} epochs by validation: epoch {results['best_epoch']};"
        f" {results['wall_time_seconds']:.0f} s",
    )
    table.add_column("classifier")
    for heading in ["test accuracy", "NLL, nats", "calibration error"]:
        table.add_column(heading, justify="right")
    table.add_row(
        classifier,
        f"{results['test/accuracy']:.2%}",
        f"{results['test/nll']:.4f}",
        f"{results['test/ece']:.2%}",
    )
    for baseline in results["baselines"].values():
        table.add_row(baseline["title"], f"{baseline['accuracy']:.2%}", "-", "-")
    return table
