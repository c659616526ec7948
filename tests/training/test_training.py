"""What training as a whole promises: exact repetition and resumption, full = chunked, a clear stop, real signals."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor

import memlab
from memlab.data.episodes import Episode
from memlab.signals import TRY_AGAIN
from memlab.training.module import MemoryClassifier
from memlab.training.schedules import CosineAnnealing
from tests.conftest import REPOSITORY, SMOKE, Outcome

QUIET = ("trainer.enable_progress_bar=false", "figures=false")
STEPS = 21  # of an epoch on digits in batches of 64


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
    return state


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


WITH_DROPOUT = ("encoder=mlp", "encoder.dropout=0.3", "scheduler=constant", "memory=chunked", "memory.chunk_size=200")


class TestResume:
    @pytest.fixture
    def straight(self, command: Callable[..., Outcome]) -> dict[str, Tensor]:
        outcome = command(*QUIET, *WITH_DROPOUT, "trainer.max_epochs=3", "hydra.run.dir=straight")
        assert outcome.status == 0, outcome.err
        return weights(outcome.folder / "straight")

    def test_between_epochs_is_exact(self, straight: dict[str, Tensor], command: Callable[..., Outcome]) -> None:
        words = (*QUIET, *WITH_DROPOUT)
        command(*words, "trainer.max_epochs=2", "hydra.run.dir=first")
        outcome = command(
            *words, "trainer.max_epochs=3", "ckpt_path=first/checkpoints/last.ckpt", "hydra.run.dir=second"
        )
        assert outcome.status == 0, outcome.err
        assert_equal(weights(outcome.folder / "second"), straight)
        assert (outcome.folder / "second" / "checkpoints" / "best.ckpt").is_file()
        results = json.loads((outcome.folder / "second" / "results.json").read_text())
        assert results["epochs"] == 3
        before = json.loads((outcome.folder / "straight" / "results.json").read_text())
        assert results["best_epoch"] == before["best_epoch"]
        assert_equal(weights(outcome.folder / "second", "best.ckpt"), weights(outcome.folder / "straight", "best.ckpt"))

    def test_within_an_epoch_is_exact(self, straight: dict[str, Tensor], command: Callable[..., Outcome]) -> None:
        words = (*QUIET, *WITH_DROPOUT)
        stop = (f"trainer.max_steps={STEPS + 8}",)  # a checkpoint at step 8 of 21
        command(*words, *stop, "trainer.max_epochs=3", "hydra.run.dir=first")
        cut = torch.load("first/checkpoints/last.ckpt", weights_only=True)
        assert cut["global_step"] == STEPS + 8
        outcome = command(
            *words, "trainer.max_epochs=3", "ckpt_path=first/checkpoints/last.ckpt", "hydra.run.dir=second"
        )
        assert outcome.status == 0, outcome.err
        assert_equal(weights(outcome.folder / "second"), straight)

    @pytest.mark.parametrize(
        ("first", "also"),
        [
            ("trainer.max_epochs=1", "trainer.val_check_interval=7"),  # an epoch ends with the third of its validations
            ("trainer.max_steps=5", "trainer.accumulate_grad_batches=2"),
        ],
    )
    def test_up_to_a_step_is_exact(self, first: str, also: str, command: Callable[..., Outcome]) -> None:
        words = (*QUIET, "baselines=[]", "encoder=linear", "encoder.dropout=0.3", "scheduler=constant", also)
        command(*words, "trainer.max_steps=23", "hydra.run.dir=straight")
        command(*words, first, "hydra.run.dir=first")
        last = "ckpt_path=first/checkpoints/last.ckpt"
        outcome = command(*words, "trainer.max_steps=23", last, "hydra.run.dir=second")
        assert outcome.status == 0, outcome.err
        ended, straight = (
            torch.load(outcome.folder / run / "checkpoints" / "last.ckpt", weights_only=True)
            for run in ("second", "straight")
        )
        assert_equal(ended["state_dict"], straight["state_dict"])
        assert ended["global_step"] == 23
        assert ended["EpisodeDataModule"] == straight["EpisodeDataModule"]

    def test_after_an_interruption_in_the_validation_of_an_epoch_is_exact(
        self, straight: dict[str, Tensor], command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = (*QUIET, *WITH_DROPOUT, "trainer.max_epochs=3")

        def interrupt(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(MemoryClassifier, "_encode_memory", interrupt)
            assert command(*words, "hydra.run.dir=first").status == TRY_AGAIN
        last = "ckpt_path=first/checkpoints/last.ckpt"
        outcome = command(*words, "trainer.max_epochs=1", last, "hydra.run.dir=short")
        assert outcome.status == 0, outcome.err
        assert json.loads((Path("short") / "results.json").read_text())["epochs"] == 1
        outcome = command(*words, last, "hydra.run.dir=second")
        assert outcome.status == 0, outcome.err
        assert_equal(weights(outcome.folder / "second"), straight)

    @pytest.mark.parametrize("index", ["exact", "ivf"])
    @pytest.mark.parametrize("cut", [STEPS, STEPS + 8])
    def test_with_stored_keys_is_exact(self, index: str, cut: int, command: Callable[..., Outcome]) -> None:
        """Between epochs and within one; 10 does not divide the steps, so that keys of several ages are stored."""
        if index == "ivf":
            pytest.importorskip("faiss")
        memory = ("memory=topk", f"memory/index={index}", "memory.refresh_every=10", "memory.k=6")
        words = (*QUIET, *WITH_DROPOUT[:3], *memory, "augmentation=none", "trainer.max_epochs=2")
        command(*words, "hydra.run.dir=straight")
        command(*words, f"trainer.max_steps={cut}", "hydra.run.dir=first")
        last = "first/checkpoints/last.ckpt"
        assert torch.load(last, weights_only=True)["memory"]["step"] == cut
        outcome = command(*words, f"ckpt_path={last}", "hydra.run.dir=second")
        assert outcome.status == 0, outcome.err
        assert_equal(weights(outcome.folder / "second"), weights(outcome.folder / "straight"))

    def test_for_longer_than_planned_follows_the_schedule_of_the_longer_run(
        self, command: Callable[..., Outcome]
    ) -> None:
        command(*QUIET, "encoder=linear", "trainer.max_epochs=2", "hydra.run.dir=first")
        outcome = command(
            *QUIET,
            "encoder=linear",
            "trainer.max_epochs=4",
            "ckpt_path=first/checkpoints/last.ckpt",
            "hydra.run.dir=second",
        )
        rows = list(csv.DictReader((outcome.folder / "second" / "metrics.csv").open()))
        rates = [float(row["lr-AdamW/weights"]) for row in rows if row["lr-AdamW/weights"]]
        assert rates == pytest.approx([0.002 * CosineAnnealing(warmup=0)(epoch / 4) for epoch in (2, 3)])

    def test_keeps_the_best_so_far_when_nothing_better_comes(
        self, command: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        command(*SMOKE, "hydra.run.dir=first")
        path = tmp_path / "first" / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        (kept,) = [state for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint")]
        kept["best_model_score"] = torch.tensor(-1.0)  # better than any to come
        torch.save(checkpoint, path)
        path.with_name("last.ckpt.sha256").unlink()
        first = json.loads((tmp_path / "first" / "results.json").read_text())
        command(*SMOKE, "trainer.max_epochs=2", f"ckpt_path={path}", "hydra.run.dir=second")
        results = json.loads((tmp_path / "second" / "results.json").read_text())
        assert (results["epochs"], results["best_epoch"]) == (2, 1)
        chosen_by = ("validation/nll", "validation/accuracy", "test/nll")
        assert [results[name] for name in chosen_by] == [first[name] for name in chosen_by]
        best = weights(tmp_path / "second", "best.ckpt")
        assert_equal(best, weights(tmp_path / "first", "best.ckpt"))


class TestEnd:
    """A run ends with a validation and a checkpoint of its last step, whatever ends it."""

    WORDS = (*QUIET, "baselines=[]", "encoder=linear")

    @pytest.mark.parametrize(
        ("words", "validated"),
        [
            (("trainer.max_steps=5",), [5]),
            (("trainer.max_steps=25",), [21, 25]),
            (("trainer.max_steps=25", "trainer.val_check_interval=8"), [8, 16, 25]),
            (("trainer.max_steps=24", "trainer.check_val_every_n_epoch=3"), [24]),
            (("trainer.max_steps=9", "trainer.accumulate_grad_batches=4"), [6, 9]),
            (("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"), [42, 63]),
            (("trainer.max_epochs=1", "trainer.val_check_interval=8"), [8, 16, 21]),
            (
                ("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=25"),
                [25, 42],
            ),
        ],
    )
    def test_by_epochs_or_steps(
        self,
        words: tuple[str, ...],
        validated: list[int],
        command: Callable[..., Outcome],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        steps: list[int] = []
        monkeypatch.setattr(
            MemoryClassifier, "on_validation_start", lambda model: steps.append(model.global_step), raising=False
        )
        outcome = command(*self.WORDS, *words)
        assert outcome.status == 0, outcome.err
        assert steps == validated
        self.check_checkpoints(outcome.run_folders[0], validated)

    def check_checkpoints(self, folder: Path, validated: list[int]) -> None:
        best, last = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")
        )
        assert last["global_step"] == validated[-1]
        assert best["global_step"] in validated
        assert (folder / "results.json").is_file()

    def test_by_time(self, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
        """By a clock that goes on by a second with each step."""
        steps = [0]
        monkeypatch.setattr(Timer, "time_elapsed", lambda *_: steps[0])
        step = MemoryClassifier.training_step

        def counted(model: MemoryClassifier, batch: Episode, batch_idx: int) -> Tensor:
            steps[0] += 1
            return step(model, batch, batch_idx)

        monkeypatch.setattr(MemoryClassifier, "training_step", counted)
        outcome = command(*self.WORDS, "trainer.max_time=00:00:00:05", "trainer.check_val_every_n_epoch=2")
        assert outcome.status == 0, outcome.err
        self.check_checkpoints(outcome.run_folders[0], [5])


def test_last_is_the_last_epoch_also_if_an_earlier_one_was_the_best(command: Callable[..., Outcome]) -> None:
    rising = ("scheduler=step", "scheduler.factor.at=[0.4]", "scheduler.factor.gamma=1000")  # which ruins it
    words = ("experiment=thesis", "encoder=linear", "optimizer.lr=0.001", *rising)
    outcome = command(*QUIET, *words, "trainer.max_epochs=3")
    (folder,) = outcome.run_folders
    best, last = (torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert last["global_step"] == 3 * STEPS
    assert best["global_step"] < last["global_step"]
    kept = {file.name for file in (folder / "checkpoints").iterdir()}
    assert kept == {f"{name}.ckpt{end}" for name in ("best", "last", "before_last") for end in ("", ".sha256")}


def test_the_same_seed_repeats_exactly_and_another_does_not(command: Callable[..., Outcome]) -> None:
    for run in ("first", "second"):
        command(*SMOKE, f"hydra.run.dir={run}")
    outcome = command(*SMOKE, "seed=1", "hydra.run.dir=third")
    first, second, third = (weights(outcome.folder / run) for run in ("first", "second", "third"))
    assert_equal(first, second)
    assert not all(torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("encoder", [[], ["encoder=mlp", "encoder.dropout=0.3"]])
def test_full_and_chunked_end_with_the_same_weights(command: Callable[..., Outcome], encoder: list[str]) -> None:
    """Dropout and augmentation on."""
    words = (*QUIET, *encoder, "trainer.precision=64-true", "trainer.max_epochs=1")
    command(*words, "memory=full", "hydra.run.dir=full")
    outcome = command(*words, "memory=chunked", "memory.chunk_size=130", "hydra.run.dir=chunked")
    full, chunked = weights(outcome.folder / "full"), weights(outcome.folder / "chunked")
    assert all((full[name] - chunked[name]).norm() <= 1e-10 * full[name].norm() for name in full)


def test_learns_digits(command: Callable[..., Outcome]) -> None:
    outcome = command(*QUIET, "trainer.max_epochs=6")
    results = json.loads((outcome.run_folders[0] / "results.json").read_text())
    assert results["test/accuracy"] > 0.94
    assert results["test/nll"] < 0.25
    assert results["baselines"]["knn_pixels"]["accuracy"] > 0.97


@pytest.mark.parametrize("memory", ["full", "chunked", "topk", "prototypes", "linear"])
def test_nan_loss_stops_with_one_line_and_no_results(command: Callable[..., Outcome], memory: str) -> None:
    outcome = command(*QUIET, f"memory={memory}", "optimizer.lr=1e30")
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1].startswith("error: train/loss=nan in step 2, epoch 1 (its objects: nonfinite.j")
    assert not (outcome.run_folders[0] / "results.json").exists()
    assert not list(outcome.run_folders[0].glob("checkpoints/[!n]*"))


class TestRealProcess:
    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        """Start ``python train.py WORDS`` as from a terminal; what is left of it dies with the test."""
        runs = []

        def start(*words: str) -> subprocess.Popen[str]:
            run = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "train.py"), *words],
                cwd=tmp_path,
                env={**os.environ, "HYDRA_FULL_ERROR": ""},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
            )
            runs.append(run)
            return run

        yield start
        for run in runs:
            run.kill()

    def test_two_runs_started_at_once_have_folders_of_their_own_also_from_a_clone_that_is_not_installed(
        self, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "hidden").mkdir()
        (tmp_path / "hidden" / "sitecustomize.py").write_text(
            "import importlib.metadata as metadata\n"
            "def version(name, known=metadata.version):\n"
            "    if name == 'memlab':\n"
            "        raise metadata.PackageNotFoundError(name)\n"
            "    return known(name)\n"
            "metadata.version = version\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
        runs = [start(*SMOKE, f"seed={seed}") for seed in range(2)]
        for run in runs:
            out, err = run.communicate(timeout=120)
            assert run.returncode == 0, err
            assert out.startswith("digits: 1,293 objects to train on")  # and nothing that others say of themselves
        found = [json.loads(file.read_text()) for file in tmp_path.glob("outputs/*/results.json")]
        assert sorted(results["seed"] for results in found) == [0, 1]
        assert {results["versions"]["memlab"] for results in found} == {memlab.__version__}

    def test_ctrl_c_keeps_a_checkpoint_to_go_on_from(
        self, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
    ) -> None:
        run = start(*QUIET, "trainer.max_epochs=10000", "trainer.check_val_every_n_epoch=1")
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob("outputs/*/checkpoints/last.ckpt")):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
        assert run.returncode == TRY_AGAIN
        assert "Traceback" not in err
        (kept,) = tmp_path.glob("outputs/*/checkpoints/last.ckpt")
        assert torch.load(kept, weights_only=True)["global_step"] > 0
        told = f"python train.py resume={kept.parent.parent.relative_to(tmp_path)}"
        assert err.splitlines()[-1] == f"error: interrupted by SIGINT; go on with {told}"
