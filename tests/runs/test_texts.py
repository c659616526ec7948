"""Texts from their file to answers on new ones: in the commands that people type."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from memlab.data.tokens import Tokens
from memlab.data.vocabulary import FIRST
from memlab.encoders.texts import TokenVectors
from memlab.trained import RefusedMemoryError, load
from tests.conftest import SMOKE, Command, Outcome
from tests.data.text_files import texts, tokenizer_file, write_csv, write_folder
from tests.runs.test_trained_memory import WHOLE_TEST, equal, told

MINE = ("data=text", "data.path=mine.csv", "data.text=said", "data.target=about", "encoder.word_size=8")


def test_from_a_file_to_answers(command: Callable[..., Outcome], memlab: Command, tmp_path: Path) -> None:
    """One run serves all of this, as it takes longest."""
    pytest.importorskip("polars")
    write_csv(tmp_path / "mine.csv", 200)
    write_csv(tmp_path / "test.csv", 40, seed=1)
    words = ("data.test_path=test.csv", "trainer.max_epochs=15", "optimizer.lr=1e-2", "figures=true")
    outcome = command(*WHOLE_TEST, *MINE, *words)
    assert outcome.status == 0, outcome.err
    assert '--text "..."' in outcome.out
    run = outcome.run_folders[0]
    assert "test: 40 texts of" in (run / "train.log").read_text()
    check_answers(run, memlab, tmp_path)
    check_that_evidence_is_in_words(run, memlab)
    check_that_what_is_forgotten_leaves_no_trace(run)
    check_that_mistakes_are_told(run, memlab, tmp_path)


def check_answers(run: Path, memlab: Command, tmp_path: Path) -> None:
    """They are those of the run's test to the bit, whatever is asked beside."""
    ids, labels, mass = told(run)
    memory, test = load(run), texts(40, seed=1)
    assert equal(memory.predict([test[place - 200][0] for place in ids]), labels, mass)
    assert json.loads((run / "results.json").read_text())["test/accuracy"] > 0.9
    write_folder(tmp_path / "more", 20, seed=2)
    write_csv(tmp_path / "more.csv", 20, seed=2)
    for given in ("more", "more.csv"):
        status, out, err = memlab("evaluate", run, tmp_path / given, "--json")
        assert status == 0, err
        assert json.loads(out)["accuracy"] > 0.9
    status, out, _ = memlab("predict", run, tmp_path / "more.csv", "--csv", tmp_path / "answers.csv")
    assert status == 0
    with (tmp_path / "answers.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["input"] == f'more.csv row 1: "{texts(20, seed=2)[0][0]}"'


def check_that_evidence_is_in_words(run: Path, memlab: Command) -> None:
    status, out, err = memlab("predict", run, "--text", "We saw a trout.", "--text", "Heron!", "--k", "2", "--json")
    assert (status, err) == (0, "")
    fish, birds = json.loads(out)
    assert (fish["label"], birds["label"]) == ("fish", "birds")
    assert fish["input"] == '"We saw a trout."'
    said = {f'mine.csv row {row + 1}: "{text}"' for row, (text, name) in enumerate(texts(200)) if name == "fish"}
    assert {each["source"] for each in fish["evidence"]} <= said
    page = (run / "figures" / "evidence.html").read_text()
    assert sum(text in page for text, _ in texts(200)) > 20
    status, out, err = memlab("predict", run, "--text", "Qwertz", "--text", "")
    assert status == 0
    assert 'warning: 2 texts, as "Qwertz", have no words that training has seen' in err


def check_that_what_is_forgotten_leaves_no_trace(run: Path) -> None:
    memory, new = load(run), [text for text, _ in texts(5, seed=4)]
    before, digest = memory.predict(new), memory.digest
    ids = memory.add(["A dodo was extinct.", "The dodo, again."], "dodo")
    assert load(run).classes[-1] == "dodo"
    memory.forget(ids)
    assert memory.digest == load(run).digest == digest
    np.testing.assert_array_equal(memory.predict(new).probabilities, before.probabilities)
    assert memory.predict(new[0]).labels == before.labels[:1]


def check_that_mistakes_are_told(run: Path, memlab: Command, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("text,n\na,b\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    for words, line in (
        (["predict", run], "FILES: must be given, what is to be classified; or --text, and not both"),
        (["predict", run, "a.txt", "--text", "a"], "and not both"),
        (["predict", run, tmp_path / "none.txt"], "none.txt: there is no such file"),
        (["predict", run, tmp_path / "other.csv"], "text=said: "),
        (["predict", run, tmp_path / "broken.jsonl"], "line 1 is no JSON"),
        (["predict", run, tmp_path / "more.csv", tmp_path / "other.csv"], "must be given alone"),
        (["evaluate", run, tmp_path / "more.csv", "--target", "kind"], "target=kind: "),
        (["export", run, "--onnx", tmp_path / "m.onnx"], "sequences have any number of steps"),
    ):
        status, _, err = memlab(*words)
        assert status == 1, words
        assert line in err
        assert len(err.splitlines()) == 1
    with pytest.raises(ValueError, match=r"inputs\[1\]: is of type int; must be a text"):
        load(run).predict(["a", 3])
    manifest = run / "memory" / "memory.json"
    whole = manifest.read_text()
    for part, value in (("vocabulary", ["a"]), ("tokens", "bytes"), ("longest", "long")):
        found = json.loads(whole)
        found["model"]["texts"][part] = value
        manifest.write_text(json.dumps(found))
        with pytest.raises(RefusedMemoryError):
            load(run)


def test_pairs_from_a_file_to_answers(command: Callable[..., Outcome], memlab: Command, tmp_path: Path) -> None:
    """The class is whether both texts are about the same."""
    pairs = list(zip(texts(240, seed=5), texts(240, seed=6)[1:] + texts(1, seed=7), strict=True))
    pairs = [*pairs[:120], *((one, other) for (one, _), (_, other) in zip(pairs[120::2], pairs[121::2], strict=True))]
    rows = [{"one": one[0], "two": two[0], "about": "same" if one[1] == two[1] else "other"} for one, two in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("data=text", "data.path=pairs.jsonl", "data.text=[one,two]", "data.target=about")
    outcome = command(*WHOLE_TEST, *words, "trainer.max_epochs=3", "encoder=bag", "figures=true")
    assert outcome.status == 0, outcome.err
    run = outcome.run_folders[0]
    ids, labels, mass = told(run)
    memory, given = load(run), [(row["one"], row["two"]) for row in rows]
    assert equal(memory.predict([given[place] for place in ids]), labels, mass)
    assert memory.predict(list(given[ids[0]])).labels == labels[:1]
    status, out, err = memlab("predict", run, "--text", "A wren.", "The trout.", "--k", "1")
    assert (status, err) == (0, "")
    assert out.startswith('"A wren." / "The trout.": ')
    status, out, err = memlab("predict", run, tmp_path / "pairs.jsonl")
    assert len(out.splitlines()) == len(rows)
    for wrong, line in (
        (["predict", run, "--text", "A wren."], '--text "A wren.": must be a pair of texts, 2 after each --text'),
        (["predict", run, write_folder(tmp_path / "more", 4)], "is a folder, of single texts"),
    ):
        status, _, err = memlab(*wrong)
        assert (status, len(err.splitlines())) == (1, 1)
        assert line in err


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("encoder", ["lstm", "tfidf", "transformer"])
def test_word_vectors_of_a_file_are_started_with_and_kept(
    encoder: str, tuned: bool, command: Callable[..., Outcome], memlab: Command, tmp_path: Path
) -> None:
    """The trained memory has those of its words, and needs the file no more."""
    pytest.importorskip("polars")
    write_csv(tmp_path / "mine.csv", 120)
    words = sorted({word for text, _ in texts(120) for word in Tokens("words").split(text)})
    lines = [f"{word} {' '.join(str(len(word) * place) for place in range(12))}" for word in words if word != "the"]
    (tmp_path / "mine.vec").write_text("\n".join(lines))
    options = (f"encoder={encoder}", "encoder.vectors=mine.vec", f"encoder.tune_vectors={str(tuned).lower()}")
    outcome = command(*SMOKE, *MINE[:-1], *options)
    assert outcome.status == 0, outcome.err
    (run,) = outcome.run_folders
    assert "have a vector of 12 numbers there; others start at 0, as the" in (run / "train.log").read_text()
    (tmp_path / "mine.vec").unlink()
    memory = load(run)
    kept = memory.kind.texts
    assert kept is not None
    (vectors,) = (each for each in memory._model.encoder.modules() if isinstance(each, TokenVectors))
    given = torch.zeros(len(kept.vocabulary), 12)
    for place, word in enumerate(kept.vocabulary.words):
        given[FIRST + place] = 0 if word == "the" else len(word) * torch.arange(12)
    assert torch.equal(vectors.vectors.weight, given) != tuned
    status, out, _ = memlab("predict", run, "--text", "We saw a trout.", "--json")
    assert (status, len(json.loads(out))) == (0, 1)


def test_the_tokenizer_of_a_file_is_kept(command: Callable[..., Outcome], memlab: Command, tmp_path: Path) -> None:
    pytest.importorskip("polars")
    pytest.importorskip("tokenizers")
    write_csv(tmp_path / "mine.csv", 120)
    file = tokenizer_file(tmp_path / "pieces.json")
    outcome = command(*SMOKE, *MINE, "data.tokens=pieces.json")
    assert outcome.status == 0, outcome.err
    (run,) = outcome.run_folders
    assert "tokens known" in (run / "train.log").read_text()
    file.unlink()
    status, out, err = memlab("predict", run, "--text", "We saw a trout.", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)[0]["input"] == '"We saw a trout."'
    assert load(run).predict(["We saw a trout."]).labels[0] == json.loads(out)[0]["label"]


def test_a_memory_of_digits_takes_no_text(memlab: Command, command: Callable[..., Outcome]) -> None:
    run = command(*SMOKE).run_folders[0]
    status, _, err = memlab("predict", run, "--text", "three")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "--text: is for a memory of texts; must be given an array (1, 8, 8)" in err or "a picture file" in err


@pytest.mark.parametrize("encoder", ["bag", "tfidf", "text_conv", "fcn", "gru", "transformer"])
def test_chunked_trains_as_full_does_with_dropout_on(
    encoder: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    pytest.importorskip("polars")
    write_csv(tmp_path / "mine.csv", 70)
    dropout = ("encoder.dropout=0.4", "encoder.word_dropout=0.2", "trainer.precision=64-true")
    found: list[dict[str, torch.Tensor]] = []
    for memory in (["memory=full"], ["memory=chunked", "memory.chunk_size=7"]):
        words = (*SMOKE, *MINE, f"encoder={encoder}", *dropout, *memory, f"hydra.run.dir=outputs/{len(found)}")
        outcome = command(*words)
        assert outcome.status == 0, outcome.err
        checkpoint = tmp_path / "outputs" / str(len(found)) / "checkpoints" / "last.ckpt"
        found.append(torch.load(checkpoint, weights_only=True)["state_dict"])
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("encoder=conv",), "use fcn or another encoder of sequences"),
        (("encoder=table",), "input_shape=(None, 1): must be (columns,)"),
        (("data.text=text",), "text=text: mine.csv has no such column"),
        (("data.path=none.csv",), "path=none.csv: there is no such file or folder"),
        (("data.rare_below=0",), "rare_below=0: must be a whole number of at least 1"),
        (("encoder.vectors=none.vec",), "encoder.vectors=none.vec: cannot be read (No such file or directory)"),
        (("encoder.tune_vectors=false",), "encoder.tune_vectors=false: must be true without encoder.vectors"),
        (
            ("data.tokens=characters", "encoder.vectors=none.vec"),
            "encoder.vectors=none.vec: are those of words, and these are characters; must be null",
        ),
        (
            ("data=digits", "augmentation=none", "data.as=pixel_rows", "encoder=lstm", "encoder.vectors=none.vec"),
            "encoder.vectors=none.vec: are those of words, and these are objects (None, 8); must be null",
        ),
        (("data=digits", "encoder=bag"), "must be texts, as of data=text"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], message: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    pytest.importorskip("polars")
    write_csv(tmp_path / "mine.csv", 40)
    outcome = command(*SMOKE, *([] if "data=digits" in words else MINE[:-1]), *words)
    assert outcome.status == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
