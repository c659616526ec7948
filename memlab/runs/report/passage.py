"""The place in a Markdown file where a report stands, and can be written again without touching what is around it."""

from __future__ import annotations

from pathlib import Path

from memlab.files import write_whole

BEGIN, END = "<!-- memlab report -->", "<!-- end of memlab report -->"


class Passage:
    """What stands between a line `BEGIN` and a line `END`.

    Args:
        file: a text file.

    Raises:
        ValueError: if there is no such file, or it lacks one of the lines.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise ValueError(f"--into {file}: there is no such file")
        self._file = file
        before, begin, rest = file.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
        _, end, after = rest.partition(f"{END}\n")
        if not (begin and end):
            raise ValueError(f"--into {file}: must have a line {BEGIN} and below it a line {END}")
        self._before, self._after = before + begin, end + after

    def write(self, text: str) -> None:
        """Put other text there."""
        write_whole(self._file, f"{self._before}\n{text}\n{self._after}")
