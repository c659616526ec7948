"""Where a run says what it does: handlers of logging that do not answer a full disk with a traceback."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

from memlab.files import named_in_errors

FILE = "train.log"


class LogFile(logging.FileHandler):
    """Writes lines into a file; one that cannot be written ends the run, as any other file of it does."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Let the error of the system through that is under way, with the name of the file.

        Raises:
            OSError: if it is one.
        """
        if isinstance(error := sys.exception(), OSError):
            with named_in_errors(Path(self.baseFilename)):
                raise error
        super().handleError(record)


class Screen(logging.StreamHandler[TextIO]):
    """Writes lines onto the screen, or wherever it leads; lines that cannot be written are in the file."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Pass over what cannot be written."""
