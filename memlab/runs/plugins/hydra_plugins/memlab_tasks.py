"""Where Hydra finds the groups that a task shares with the others. Hydra imports this at every start."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

FOLDER = "tasks"


class SharedGroups(SearchPathPlugin):
    """Has Hydra look for groups beside ``tasks/`` after it has looked in ``tasks/NAME/``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder around that of the task, if it is one."""
        for element in search_path.get_path():
            folder = Path(str(element.path).removeprefix("file://"))
            if element.provider == "main" and folder.parent.name == FOLDER:
                search_path.append("memlab", f"file://{folder.parent.parent}")
                return
