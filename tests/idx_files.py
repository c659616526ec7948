"""MNIST's file layout, written small: big-endian IDX as torchvision reads it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_idx(root: Path, *, folder: str = "MNIST", train: int = 200, test: int = 60, seed: int = 0) -> Path:
    """Write random 28 x 28 images of ten classes under ``root``; return the folder of the raw files."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for name, size in (("train", train), ("t10k", test)):
        labels = np.arange(size, dtype=np.uint8) % 10
        images = random.integers(0, 40, (size, 28, 28), dtype=np.uint8)
        images[np.arange(size), labels * 2 + 4] = 255  # a bright row tells the class
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, size, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, size) + labels.tobytes())
    return raw
