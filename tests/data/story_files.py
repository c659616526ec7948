"""Files of stories, small: two kinds of questions, about where somebody is and who somebody gave something to."""

from __future__ import annotations

import json
import random
from pathlib import Path

from memlab.data.datasets.babi import FOLDERS, TASKS, TOP

WHO, WHERE = ("mary", "john", "sandra"), ("hall", "garden", "office")


def write_tasks(root: Path, *, stories: int = 20) -> None:
    """All twenty tasks of bAbI, with the same stories in each: several questions, each with its supporting fact."""
    for folder in FOLDERS.values():
        (root / TOP / folder).mkdir(parents=True)
        for task in TASKS:
            for part in ("train", "test"):
                file = root / TOP / folder / f"qa{task}_made_{part}.txt"
                file.write_text("".join(_babi(random.Random(f"{task} {part} {number}")) for number in range(stories)))


def write_stories(file: Path, *, stories: int = 40) -> None:
    """Stories of one question each, as JSON lines."""
    with file.open("w") as target:
        for number in range(stories):
            draw = random.Random(number)
            told = [(draw.choice(WHO), draw.choice(WHERE)) for _ in range(draw.randint(2, 5))]
            who = draw.choice(told)[0]
            last = max(place for place, (name, _) in enumerate(told) if name == who)
            line = {
                "story": [f"{name} went to the {where}." for name, where in told],
                "question": f"Where is {who}?",
                "answer": told[last][1],
                "supporting": [last],
            }
            target.write(json.dumps(line) + "\n")


def _babi(draw: random.Random) -> str:
    lines, seen = [], {}
    for _ in range(3):
        who, where = draw.choice(WHO), draw.choice(WHERE)
        lines.append(f"{who} went to the {where}.")
        seen[who] = (where, len(lines))
        asked = draw.choice(list(seen))
        lines.append(f"Where is {asked}?\t{seen[asked][0]}\t{seen[asked][1]}")
    return "".join(f"{number} {line}\n" for number, line in enumerate(lines, 1))
