"""Folders of small images as a user would bring them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 200), "green": (30, 190, 30), "red": (210, 30, 20)}


def write_images(
    root: Path, *, parts: tuple[str, ...] = ("train", "test"), each: int = 6, size: int = 12, suffix: str = ".png"
) -> Path:
    """Write ``each`` noisy images of every colour below every part; return the root."""
    random = np.random.default_rng(0)
    for part in parts:
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                noise = random.integers(-20, 20, (size, size, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03}{suffix}")
    return root
