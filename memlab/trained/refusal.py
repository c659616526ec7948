"""What is told when a folder cannot be taken for a trained memory."""

from __future__ import annotations


class RefusedMemoryError(ValueError):
    """A folder that holds no trained memory, or one that is damaged, of another version, or does not fit itself."""


class UnchangeableMemoryError(ValueError):
    """A memory that cannot be changed now: another process does, or its folder cannot be written."""
