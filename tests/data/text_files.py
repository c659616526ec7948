"""Texts whose class is told by what animal is in them, in the formats that are read."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

ANIMALS = {"birds": ["heron", "robin", "wren"], "fish": ["pike", "perch", "trout"]}
OTHERS = ["a", "the", "saw", "we", "by", "river", "in", "morning", "old", "grey", "three", "and", "then"]


def texts(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """(text, class) of 3 to 12 words, one of which is an animal."""
    chance, made = random.Random(seed), []
    for number in range(count):
        name = list(ANIMALS)[number % 2]
        words = chance.choices(OTHERS, k=chance.randint(2, 11))
        words.insert(chance.randint(0, len(words)), chance.choice(ANIMALS[name]))
        made.append((" ".join(words).capitalize() + ".", name))
    return made


def write_csv(file: Path, count: int, *, seed: int = 0) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("said", "about"), *texts(count, seed=seed)])
    return file


def write_lines(file: Path, count: int, *, seed: int = 0) -> Path:
    lines = [json.dumps({"about": name, "said": text}) for text, name in texts(count, seed=seed)]
    file.write_text("\n".join(lines) + "\n")
    return file


def write_folder(folder: Path, count: int, *, seed: int = 0) -> Path:
    for number, (text, name) in enumerate(texts(count, seed=seed)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number:04}.txt").write_text(text)
    return folder


def tokenizer_file(file: Path) -> Path:
    """A tokenizer of word pieces, as of BERT, learned from some texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"])
    made.train_from_iterator([text for text, _ in texts(60)], trainer)
    made.save(str(file))
    return file
