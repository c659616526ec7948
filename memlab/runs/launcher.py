"""Hydra finds launchers in packages called ``hydra_plugins`` alone; this shows it the one that lies in ``plugins/``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from hydra.core.plugins import Plugins

FOLDER = str(Path(__file__).parent / "plugins")


def make_known() -> None:
    """Let Hydra take the launcher that ``conf/hydra/launcher/jobs.yaml`` names."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    Plugins.instance().register(import_module("hydra_plugins.memlab_sweeps").Jobs)
