"""Stories of one's own with questions, from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memlab.checks import check_number, check_whole_number
from memlab.data.stories import Story, read_stories


@dataclass(frozen=True)
class StoryData:
    """Stories to learn from, to choose by, and to be measured on."""

    name: str
    train: tuple[Story, ...]
    validation: tuple[Story, ...]
    test: tuple[Story, ...]


def story_file(
    *, path: str, test_path: str | None, test_fraction: float, validation_fraction: float, split_seed: int
) -> StoryData:
    """Stories of a file, in one of the formats of `memlab.data.stories`.

    Args:
        path: of the file.
        test_path: of the test stories; None to hold some of the others out.
        test_fraction: share of the stories that is held out for the test, without ``test_path``.
        validation_fraction: share of the other stories that is held out for validation.
        split_seed: draws them.

    Raises:
        ValueError: for a value out of range, a file that is not as it must be, or too few stories to hold some out.
    """
    check_number("test_fraction", test_fraction, above=0, below=1)
    check_number("validation_fraction", validation_fraction, above=0, below=1)
    check_whole_number("split_seed", split_seed, minimum=0)
    stories = read_stories(Path(path))
    if test_path is None:
        stories, test = held_out(stories, fraction=test_fraction, seed=(split_seed, 0))
    else:
        test = read_stories(Path(test_path))
    train, validation = held_out(stories, fraction=validation_fraction, seed=(split_seed, 1))
    shares = {"test_fraction": (test_fraction, test), "validation_fraction": (validation_fraction, validation)}
    for name, (share, part) in shares.items():
        if not part:
            raise ValueError(
                f"{name}={share}: holds out none of {len(stories)} stories; must be a share that makes one"
            )
    if not train:
        raise ValueError(f"path={path}: has too few stories to train on; must have more than are held out")
    return StoryData(Path(path).name, tuple(train), tuple(validation), tuple(test))


def held_out(stories: Sequence[Story], *, fraction: float, seed: tuple[int, ...]) -> tuple[list[Story], list[Story]]:
    """Stories that are kept, and a share of them, to the nearest whole number, that is held out.

    Args:
        stories: all.
        fraction: the share.
        seed: draws them.
    """
    drawn = np.random.default_rng(seed).permutation(len(stories))
    apart = set(drawn[: round(fraction * len(stories))].tolist())
    kept = [story for place, story in enumerate(stories) if place not in apart]
    return kept, [story for place, story in enumerate(stories) if place in apart]
