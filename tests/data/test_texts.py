"""Texts as tokens, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
import torch

from memlab.data.datasets import LabelledData, text
from memlab.data.texts import Texts, told_coverage
from memlab.data.tokens import Tokens
from memlab.data.vocabulary import FIRST, UNKNOWN
from tests.data.text_files import texts, write_csv, write_folder, write_lines

USUAL: dict[str, Any] = {
    "text": "said",
    "target": "about",
    "test_path": None,
    "tokens": "words",
    "rare_below": 1,
    "most_tokens": 1000,
    "longest": 100,
    "test_fraction": 0.25,
    "split_seed": 0,
}


def read(path: Path, **changes: Any) -> LabelledData:
    return text(path=str(path), **{**USUAL, **changes})


def said(data: LabelledData, row: int) -> str:
    store = data.store
    assert store.texts is not None
    return store.texts.text(store.inputs.taken(torch.tensor([row])))


def test_known_are_the_tokens_of_most_training_texts() -> None:
    given = ["a b c", "a b", "a d", "a a e e e"]
    made = Texts.of(given, tokens=Tokens("words"), rare_below=1, most_tokens=3, longest=9)
    assert made.vocabulary.words == ("a", "b", "c")  # of c, d and e, in a text each, the first
    assert Texts.of(given, tokens=Tokens("words"), rare_below=2, most_tokens=9, longest=9).vocabulary.words == (
        "a",
        "b",
    )
    assert made.numbers("e A c") == [UNKNOWN, FIRST, FIRST + 2]
    with pytest.raises(ValueError, match="rare_below=5: leaves none of 5 words; must be smaller"):
        Texts.of(given, tokens=Tokens("words"), rare_below=5, most_tokens=9, longest=9)


def test_a_text_is_as_many_steps_as_tokens_and_never_none() -> None:
    made = Texts.of(["one two three"], tokens=Tokens("words"), rare_below=1, most_tokens=9, longest=2)
    sequences = made.encoded(["three", "", "one two three", "four"])
    assert sequences.lengths.tolist() == [1, 1, 2, 1]
    assert [made.text(each) for each in sequences.taken(torch.arange(4))] == ["three", "…", "one two", "…"]
    assert told_coverage(made, {"test": ["three", "", "one two three"]}) == [
        "test: 3 texts of 1.3 words, 0.0% not known, 1 cut off behind 2, 1 empty"
    ]


def test_characters_are_tokens_as_they_are() -> None:
    assert Tokens("characters").split("Ab c") == ["A", "b", " ", "c"]
    made = Texts.of(["Ab c"], tokens=Tokens("characters"), rare_below=1, most_tokens=9, longest=9)
    assert made.text(made.encoded(["c A?"]).taken(torch.tensor([0]))) == "c A…"


def test_described_as_plain_json_it_comes_back() -> None:
    made = Texts.of(
        ["one two"], tokens=Tokens("words"), rare_below=1, most_tokens=9, longest=2, columns=("a",), target="b"
    )
    assert Texts.from_described(json.loads(json.dumps(made.described()))) == made
    wrong: dict[str, Any]
    for wrong in (
        {"tokens": "bytes"},
        {"tokenizer": "{}"},
        {"longest": 0},
        {"vocabulary": [1]},
        {"columns": [None]},
        {"columns": []},
        {"other": 1},
    ):
        with pytest.raises((TypeError, ValueError)):
            Texts.from_described({**made.described(), **wrong})


def parquet(file: Path, count: int) -> Path:
    polars.DataFrame(
        {"about": [name for _, name in texts(count)], "said": [text for text, _ in texts(count)]}
    ).write_parquet(file)
    return file


@pytest.mark.parametrize(
    ("name", "write"),
    [("mine.csv", write_csv), ("mine.jsonl", write_lines), ("mine.parquet", parquet), ("mine", write_folder)],
)
def test_the_same_texts_are_read_of_every_kind_of_file(
    name: str, write: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    data = read(write(tmp_path / name, 40))
    assert data.name == "mine"
    assert data.store.class_names == ("birds", "fish")
    expected = {(" ".join(Tokens("words").split(words)), label) for words, label in texts(40)}
    rows = range(len(data.store))
    assert {(said(data, row), data.store.class_names[data.store.labels[row]]) for row in rows} == expected
    assert len(data.train_rows) == 30
    first = texts(40)[0][0]
    assert any(data.source(row).endswith(f'"{first}"') for row in rows)


def test_words_are_those_of_training_texts_and_test_texts_may_have_a_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "mine.csv", 20)
    (tmp_path / "test.csv").write_text("said,about\nA dodo,birds\n,fish\n")
    data = read(tmp_path / "mine.csv", test_path=str(tmp_path / "test.csv"))
    assert data.test_rows.tolist() == [20, 21]
    assert [said(data, row) for row in (20, 21)] == ["a …", "…"]


def test_two_columns_make_pairs_in_tables_and_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("first,second,about\n" + "A b,c,x\nd,,y\n" * 4)
    rows = [
        {"first": first, "second": second, "about": name}
        for first, second, name in [("A b", "c", "x"), ("d", "", "y")] * 4
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("mine.csv", "mine.jsonl"):
        data = read(tmp_path / name, text=["first", "second"])
        assert {said(data, row) for row in range(8)} == {"a b / c", "d / …"}
        assert data.source(0).endswith('1: "A b" / "c"')
        texts = data.store.texts
        assert texts is not None
        assert Texts.from_described(json.loads(json.dumps(texts.described()))) == texts
        assert texts.separator == len(texts.vocabulary)
        with pytest.raises(ValueError, match=r'inputs\[0\]: is "a"; must be a pair of texts'):
            texts.encoded(["a"])
    with pytest.raises(ValueError, match="is a folder, of single texts"):
        read(write_folder(tmp_path / "mine", 4), text=["first", "second"])
    with pytest.raises(ValueError, match=r"text=\[a, b, c\]: must be a column, or two of pairs"):
        read(tmp_path / "mine.csv", text=["a", "b", "c"])


MISTAKES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nothing there": ("", "there is no such file or folder", {}),
    "an empty file": ("mine.csv:", "has no rows", {}),
    "no rows": ("mine.csv:said,about\n", "has no rows", {}),
    "no such column": (
        "mine.csv:text,about\na,b\n",
        "text=said: .* has no such column; must be one of text, about",
        {},
    ),
    "no such target": ("mine.csv:said,label\na,b\n", "target=about: .* has no such column", {}),
    "one class": ("mine.csv:said,about\na,b\nc,b\n", "has texts of one class alone, b; must have two", {}),
    "no class at all": ("mine.csv:said,about\na,\nc,\n", "has no text with a class", {}),
    "ragged": ("mine.csv:said,about\na,b,c\n", "line 2 has 3 cells and line 1 has 2", {}),
    "zeros": ("mine.csv:said,about\n\0,b\n", "holds bytes of zero", {}),
    "another ending": ("mine.doc:a", "must be a folder of .txt files by class, or end in .csv", {}),
    "no JSON": ("mine.jsonl:{said", "line 1 is no JSON", {}),
    "no fields": ("mine.jsonl:[1]", r"line 1 is \[1\]; must be \{...\} with fields", {}),
    "a field less": ('mine.jsonl:{"said": "a"}', "line 1 lacks about; has said", {}),
    "a number": ('mine.jsonl:{"said": 3, "about": "b"}', "said of line 1 is 3; must be a text", {}),
    "no lines": ("mine.jsonl:\n\n", "has no lines", {}),
    "not UTF-8": ("mine.jsonl:\udcff", "is not UTF-8 at byte 0", {}),
    "a folder without texts": ("mine/a/b.doc:a", "has no texts; must have folders <class>/ of .txt files in it", {}),
    "texts of no class": ("mine/b.txt:a", "has no texts", {}),
    "all words rare": ("mine.csv:said,about\na,x\nb,y\nc,x\nd,y\n", "rare_below=3: leaves none", {"rare_below": 3}),
    "tokens": (
        "mine.csv:said,about\na,x\nb,y\na,x\nb,y\n",
        "tokens=bytes: must be words, ch",
        {"tokens": "bytes"},
    ),
    "longest": ("mine.csv:said,about\na,x\nb,y\na,x\nb,y\n", "longest=0: must be a whole number", {"longest": 0}),
    "share": ("mine.csv:said,about\na,x\nb,y\n", "test_fraction=2", {"test_fraction": 2}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_read_is_one_line(mistake: str, tmp_path: Path) -> None:
    content, message, changes = MISTAKES[mistake]
    name, _, words = content.partition(":")
    file = tmp_path / (name or "missing.csv")
    if name:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(words.encode(errors="surrogateescape"))
    given = tmp_path / Path(name or "missing.csv").parts[0]
    with pytest.raises(ValueError, match=message) as caught:
        read(given, **{"test_fraction": 0.5, **changes})
    assert "\n" not in str(caught.value)
