"""Hydra finds plugins in packages called ``hydra_plugins`` alone; this shows it those that lie in ``plugins/``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from hydra.core.plugins import Plugins

FOLDER = str(Path(__file__).parent / "plugins")


def make_known() -> None:
    """Let Hydra take the launcher of ``conf/hydra/launcher/jobs.yaml``, and find the groups that tasks share."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    Plugins.instance().register(import_module("hydra_plugins.memlab_sweeps").Jobs)
    Plugins.instance().register(import_module("hydra_plugins.memlab_tasks").SharedGroups)
