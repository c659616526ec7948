"""Sequences from their file to answers on another: in the commands that people type."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from memlab.trained import RefusedMemoryError, load
from tests.conftest import SMOKE, Command, Outcome
from tests.data.sequence_files import arrays, write_archive
from tests.data.text_files import write_csv
from tests.runs.test_trained_memory import WHOLE_TEST, equal, told

TWO = ("data=sequences", "data.path=Two", "encoder.embedding_size=8")
SMALL = ("encoder.filters=[8,8]", "encoder.widths=[5,3]")
RAW = ("keep_objects=raw", "encoder.window=1", "encoder.pooling=attention")


def trained(command: Callable[..., Outcome], tmp_path: Path) -> Path:
    write_archive(tmp_path / "Two", train=160, test=30)
    outcome = command(*WHOLE_TEST, *TWO, *SMALL, *RAW, "trainer.max_epochs=15", "optimizer.lr=1e-2", "figures=true")
    assert outcome.status == 0, outcome.err
    assert "SEQUENCES.npz" in outcome.out
    return outcome.run_folders[0]


def given(count: int, *, seed: int) -> list[np.ndarray]:
    made = arrays(count, seed=seed)
    return [x[:length] for x, length in zip(made["X"], made["lengths"], strict=True)]


def test_from_a_file_to_answers(command: Callable[..., Outcome], memlab: Command, tmp_path: Path) -> None:
    """One run serves all of this, as it takes longest."""
    run = trained(command, tmp_path)
    check_answers(run, memlab, tmp_path)
    check_that_what_is_forgotten_leaves_no_trace(run)
    check_that_mistakes_are_told(run, memlab, tmp_path)


def check_answers(run: Path, memlab: Command, tmp_path: Path) -> None:
    """They are those of the run's test to the bit, whatever else is asked beside."""
    polars = pytest.importorskip("polars")
    ids, labels, mass = told(run)
    memory, test = load(run), given(30, seed=1)
    assert equal(memory.predict([test[place - 160] for place in ids]), labels, mass)
    assert json.loads((run / "results.json").read_text())["test/accuracy"] > 0.9
    new, longer = arrays(20, seed=2), np.repeat(given(1, seed=2)[0], 5, axis=0)
    np.savez(tmp_path / "new.npz", **new)
    lists = [x[:length].tolist() for x, length in zip(new["X"], new["lengths"], strict=True)]
    polars.DataFrame({"X": lists, "y": new["y"].tolist()}).write_parquet(tmp_path / "new.parquet")
    for name in ("new.npz", "new.parquet"):
        status, out, _ = memlab("evaluate", run, tmp_path / name, "--json")
        assert status == 0
        assert json.loads(out)["accuracy"] > 0.9
    status, out, _ = memlab("predict", run, tmp_path / "Two" / "Two_TEST.ts")
    assert status == 0
    assert [line.split(": ")[1].split()[0] for line in out.splitlines()] == [
        labels[ids.index(160 + i)] for i in range(30)
    ]
    assert out.startswith(f"{tmp_path / 'Two' / 'Two_TEST.ts'}[0]: ")
    assert len(memory.predict([longer, longer[:1]]).labels) == 2
    alone = [memory.predict(each).probabilities[0] for each in test[:5]]
    np.testing.assert_allclose(memory.predict(test[:5]).probabilities, np.stack(alone), atol=1e-5)


def check_that_what_is_forgotten_leaves_no_trace(run: Path) -> None:
    memory = load(run)
    before, digest, last = memory.predict(given(4, seed=3)), memory.digest, max(told(run)[0])
    place = int(memory.view.content.ids[0])
    own, (stored,) = given(160, seed=0)[place], memory.pictures([place]).values()
    torch.testing.assert_close(stored[: len(own)].double(), torch.from_numpy(own), rtol=1e-6, atol=1e-6)
    ids = memory.add([np.repeat(each, 3, axis=0) for each in given(3, seed=3)], "new")
    assert ids[0] > last
    assert memory.digest != digest
    assert load(run).classes[-1] == "new"
    memory.forget(ids)
    assert memory.digest == load(run).digest == digest
    np.testing.assert_array_equal(memory.predict(given(4, seed=3)).probabilities, before.probabilities)


def check_that_mistakes_are_told(run: Path, memlab: Command, tmp_path: Path) -> None:
    broken = arrays(4, seed=2)
    broken["X"][1, 2, 0] = np.nan
    broken["lengths"][1] = 5
    np.savez(tmp_path / "nan.npz", **broken)
    np.savez(tmp_path / "three.npz", X=np.zeros((4, 5, 3)))
    (tmp_path / "new.csv").write_text("1,2\n")
    for words, line in (
        (["predict", run, tmp_path / "nan.npz"], "X[1] has NaN or infinity in step 3"),
        (["predict", run, tmp_path / "three.npz"], "must be a sequence, an array (steps, 2) of float32"),
        (["predict", run, tmp_path / "new.csv"], "must be one file of sequences that ends in .npz"),
        (["predict", run, tmp_path / "nan.npz", tmp_path / "three.npz"], "must be one file of sequences"),
        (["evaluate", run, tmp_path / "three.npz"], "lacks y; has X"),
        (["evaluate", run, tmp_path / "nan.npz", "--target", "y"], "target=y: is for tables"),
        (["export", run, "--onnx", tmp_path / "m.onnx"], "sequences have any number of steps"),
    ):
        status, _, err = memlab(*words)
        assert status == 1, words
        assert line in err
        assert len(err.splitlines()) == 1
    memory = load(run)
    for wrong in (np.full((1, 4, 2), np.nan), [np.zeros((0, 2))], [np.zeros(2)], ["a.png"]):
        with pytest.raises(ValueError, match=r"inputs|a\.png"):
            memory.predict(wrong)
    manifest = run / "memory" / "memory.json"
    found = json.loads(manifest.read_text())
    found["model"]["shape"] = [None, 3]
    manifest.write_text(json.dumps(found))
    with pytest.raises(RefusedMemoryError):
        load(run)


def test_chunked_trains_as_full_does_with_dropout_on(command: Callable[..., Outcome], tmp_path: Path) -> None:
    write_archive(tmp_path / "Two", train=60, test=10)
    words = ["encoder=lstm", "encoder.hidden_size=8", "encoder.layers=2", "encoder.truncate=4"]
    words += ["encoder.dropout=0.4", "trainer.precision=64-true"]
    found: list[dict[str, torch.Tensor]] = []
    for memory in (["memory=full"], ["memory=chunked", "memory.chunk_size=7"]):
        outcome = command(*SMOKE, *TWO, *words, *memory, f"hydra.run.dir=outputs/{len(found)}")
        assert outcome.status == 0, outcome.err
        checkpoint = tmp_path / "outputs" / str(len(found)) / "checkpoints" / "last.ckpt"
        found.append(torch.load(checkpoint, weights_only=True)["state_dict"])
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["fcn", "lstm", "transformer"])
def test_how_far_back_gradients_go_is_drawn_of_recurrent_encoders(
    kind: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Whole sequences of other lengths than the 129 steps that are looked at, texts in the place of numbers, too."""
    pytest.importorskip("polars")
    write_archive(tmp_path / "Two", train=60, test=10)
    write_csv(tmp_path / "mine.csv", 60)
    texts = ("data=text", "data.path=mine.csv", "data.text=said", "data.target=about")
    for words in (TWO, texts):
        outcome = command(*SMOKE, *words, f"encoder={kind}", "figures=true")
        assert outcome.status == 0, outcome.err
        run = outcome.run_folders[-1]
        assert (run / "figures" / "gradients.png").exists() == (kind == "lstm")
        if kind == "lstm":
            with (run / "gradients.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            assert [row["steps"] for row in rows] == [str(step) for step in range(129)]
            assert float(rows[128]["weight 0.5"]) == pytest.approx(0.5**128)
            assert rows[0]["trained"] == rows[0]["before training"] == "1"
            assert 0 < float(rows[128]["trained"]) != float(rows[128]["before training"]) > 0


def test_several_kinds_of_training_take_sequences(command: Callable[..., Outcome], tmp_path: Path) -> None:
    write_archive(tmp_path / "Two", train=60, test=10)
    for words in (
        ("memory=topk", "memory.k=8", "encoder=gru", "encoder.variant=cudnn"),
        ("memory=topk", "memory.k=8", *SMALL),
        ("encoder=lstm", "encoder.layers=2", "encoder.window=1", "encoder.pooling=attention"),
        ("encoder=peephole", "encoder.bidirectional=false", "encoder.pooling=last", "memory.hops=1"),
        ("encoder=elman", "encoder.pooling=max", "trainer.precision=bf16-mixed", "baselines=[knn_steps,knn_dtw]"),
    ):
        outcome = command(*SMOKE, *TWO, *words)
        assert outcome.status == 0, outcome.err
    images = ("data=digits", "data.as=pixel_rows", "augmentation=none", "encoder=jordan", "encoder.hidden_size=8")
    outcome = command(*SMOKE, *images)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.path=None"], "data.path=None: there is no such file or folder"),
        (["data.path=."], "; must be a folder NAME of NAME_TRAIN.ts, NAME_TEST.ts"),
        (["encoder=mlp"], "encoder.input_shape=(None, 2): must be known"),
        (["encoder=conv"], "encoder.input_shape=(None, 2): must be (channels, height, width); use fcn"),
        (["encoder=table"], "encoder.input_shape=(None, 2): must be (columns,)"),
        (["encoder.pooling=sum"], "encoder.pooling=sum: must be one of last, mean, max, attention"),
        (["data.as=pixels"], "data.as=pixels: is for images"),
        (["baselines=[knn_pixels]"], "objects of shape (None, 2): must be one array each, of one size"),
        (["encoder=lstm", "encoder.truncate=0"], "encoder.truncate=0: must be a whole number of at least 1, or null"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: list[str], line: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    write_archive(tmp_path / "Two", train=60, test=10)
    outcome = command(*SMOKE, "data=sequences", "data.path=Two", *words)
    assert outcome.status == 1
    assert line in outcome.err
    assert len(outcome.err.splitlines()) == 1
