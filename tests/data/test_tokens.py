"""Tokens of a tokenizer file: those that the library makes of a text, and what is no such file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.data.texts import Texts
from memlab.data.tokens import Tokens
from tests.data.text_files import texts, tokenizer_file

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SAID = [text for text, _ in texts(60)]


def word_pieces(file: Path) -> Path:
    return tokenizer_file(file)


def bytes_in_pairs(file: Path) -> Path:
    """As of GPT-2, with tokens before and behind each text, cut off and filled up."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(SAID, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"]))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", made.token_to_id("<s>")), ("</s>", made.token_to_id("</s>"))]
    )
    made.enable_truncation(3)
    made.enable_padding(length=20)
    made.save(str(file))
    return file


def whole_words(file: Path) -> Path:
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(SAID, trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    made.save(str(file))
    return file


@pytest.mark.parametrize("write", [word_pieces, bytes_in_pairs, whole_words])
def test_a_text_is_cut_as_the_file_says_and_put_together_again(write: Callable[[Path], Path], tmp_path: Path) -> None:
    file = write(tmp_path / "mine.json")
    theirs: Any = Tokenizer.from_file(str(file))
    theirs.no_truncation()
    theirs.no_padding()
    tokens = Tokens.of(str(file))
    file.unlink()
    for text in (*SAID[:5], "", "Ünknown, quite"):
        assert tokens.split(text) == theirs.encode(text, add_special_tokens=False).tokens
    made = Texts.of(SAID, tokens=tokens, rare_below=1, most_tokens=1000, longest=100)
    numbers = made.encoded(SAID).taken(torch.arange(5))
    shown = [made.text(row) for row in numbers]
    assert ["".join(text.split()) for text in shown] == [
        "".join((text.lower() if write is word_pieces else text).split()) for text in SAID[:5]
    ]
    assert Texts.from_described(made.described()) == made
    assert "…" in made.text(made.encoded(["We saw 7 zebras."]).taken(torch.tensor([0])))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is no tokenizer of the tokenizers library"),
        (b"{}", "is no tokenizer of the tokenizers library"),
        (b'{"model": {"type": "new"}}', "is no tokenizer of the tokenizers library"),
        (b"\xff", "is not UTF-8 at byte 0; must be a tokenizer"),
    ],
)
def test_what_is_no_tokenizer_is_told_in_a_line(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.json") as error:
        Tokens.of(str(file))
    assert str(error.value).startswith(f"{file}: {told}")
    assert len(str(error.value).splitlines()) == 1


def test_without_the_package_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = word_pieces(tmp_path / "mine.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r'needs a package that is not there .*pip install "memlab\[tokenizers\]"'):
        Tokens.of(str(file))
