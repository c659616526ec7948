"""Every mistake a user can make gets one line that names parameter, value and rule, and leaves nothing behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from memlab.baselines import PixelKNN
from memlab.memory.stored_keys import StoredKeys
from memlab.runs import mistakes
from memlab.training.module import MemoryClassifier
from tests.conftest import SMOKE, Outcome
from tests.data.public_files import write_idx

BAD_NUMBERS = ["0", "-5", "1.5", "abc"]
WHOLE = "must be a whole number of at least 1"
LIMIT = f"{WHOLE} or a share above 0 up to 1; a run needs a step, a validation and a test"

NO_ENCODER = (
    "encoder=cnov: must be one of bag, conv, elman, fcn, gru, identity, jordan, lenet, linear, lstm, mlp,"
    " peephole, resnet, resnet_small, table, text_conv, tfidf, torchvision, transformer"
)

MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown option": (
        ["encoder=cnov"],
        NO_ENCODER,
    ),
    "a file to be named": (["data=tensors"], "data.path: must be given"),
    "unknown experiment": (["experiment=none"], "experiment=none: must be one of cifar10_lenet, cifar10_resnet, "),
    "unknown group": (["encodr=conv"], "encodr=conv: there is no such parameter or group .*did you mean encoder?"),
    "misspelt key": (["suport.size=10"], "suport.size=10: there is no such parameter .*did you mean support.size?"),
    "added key": (["+sizes=10"], "sizes: there is no such parameter or group"),
    "knob of another option": (["memory.chunk_size=10"], "memory.chunk_size=10: there is no such parameter"),
    "size of a support that has none": (["support=all", "support.size=10"], "support.size=10: there is no such"),
    "no value": (["encoder"], "Error parsing override 'encoder'"),
    **{
        f"chunk size {v}": (["memory=chunked", f"memory.chunk_size={v}"], f"memory.chunk_size={v}: {WHOLE}")
        for v in BAD_NUMBERS
    },
    **{f"M {v}": ([f"support.size={v}"], f"support.size={v}: {WHOLE}") for v in BAD_NUMBERS},
    **{f"k {v}": ([f"baselines.knn_pixels.k={v}"], f"baselines.knn_pixels.k={v}: {WHOLE}") for v in BAD_NUMBERS},
    **{f"page {v}": ([f"evidence.page_objects={v}"], f"evidence.page_objects={v}: {WHOLE}") for v in BAD_NUMBERS},
    **{f"evidence k {v}": ([f"evidence.k={v}"], f"evidence.k={v}: {WHOLE}") for v in BAD_NUMBERS},
    **{f"epochs {v}": ([f"trainer.max_epochs={v}"], f"trainer.max_epochs={v}: {WHOLE}") for v in BAD_NUMBERS},
    **{f"batch {v}": ([f"datamodule.batch_size={v}"], f"datamodule.batch_size={v}: {WHOLE}") for v in BAD_NUMBERS},
    "budget below 0": (
        ["memory=chunked", "memory.activation_budget=-1"],
        "memory.activation_budget=-1: must be a number of",
    ),
    **{f"K {v}": (["memory=topk", f"memory.k={v}"], f"memory.k={v}: {WHOLE}") for v in BAD_NUMBERS},
    **{f"K at evaluation {v}": (["evaluation=topk", f"evaluation.k={v}"], f"evaluation.k={v}: ") for v in BAD_NUMBERS},
    "both refreshes": (["memory=topk", "memory.max_age=5"], "memory.refresh_every=auto: must be given, or max_age"),
    "no refresh": (
        ["memory=topk", "memory.refresh_every=null"],
        "memory.refresh_every=None: must be given, or max_age",
    ),
    "graph in training": (
        ["memory=topk", "memory/index=hnsw"],
        "memory.index=HNSWIndex: must be exact or ivf in training, where keys change at every step",
    ),
    "index of a memory that has none": (["memory/index=ivf"], "memory/index=ivf: there is no such parameter or group"),
    "topk of less than all": (["memory=topk", "support=uniform"], "support=uniform: must be whole, the training set"),
    "more probes than lists": (
        ["memory=topk", "memory/index=ivf", "memory.index.lists=4"],
        "memory.index.probes=16: must be at most 4",
    ),
    "evidence above the cells read": (["memory=topk", "memory.k=4"], "evidence.k=6: must be at most 4"),
    "nothing held out": (
        ["datamodule.validation_fraction=0"],
        "datamodule.validation_fraction: holds nothing out; must",
    ),
    "no checkpoints": (
        ["~callbacks.last_checkpoint"],
        "callbacks: lack last_checkpoint; must have it, as callbacks=default",
    ),
    "M above what is left": (["support.size=1230"], "support.size=1230: must be at most 1229"),
    "k above the training set": (["baselines.knn_pixels.k=1294"], "baselines.knn_pixels.k=1294: must be at most 1293"),
    "evidence above the memory": (["evidence.k=1294"], "evidence.k=1294: must be at most 1293"),
    "batch that leaves nothing": (
        ["datamodule.batch_size=1293", "support=all"],
        "datamodule.batch_size=1293: must be below 1293",
    ),
    "filter above the image": (["encoder.kernel_size=9"], "encoder.kernel_size=9: must be at most 8"),
    "hops": (["memory.hops=-1"], "memory.hops=-1: must be a whole number of at least 0"),
    "values without hops": (["memory.values=both"], "memory.values=both: must be one of label, object.label, tabr"),
    "hops of class means": (
        ["memory=prototypes", "memory.hops=1"],
        "memory.hops=1: must be 0 with PrototypeMemory; full",
    ),
    "weights of classes": (["loss.class_weights=even"], "loss.class_weights=even: must be balanced, null, or numbers"),
    "weight of a class that is not": (
        ["loss.class_weights={ten: 2}"],
        "loss.class_weights.ten: there is no such class",
    ),
    "scale": (["similarity.scale=-1"], "similarity.scale=-1: must be a number above 0"),
    "dropout": (["encoder=mlp", "encoder.dropout=1"], "encoder.dropout=1: must be a number of at least 0 and below 1"),
    "learning rate in words": (["optimizer.lr=fast"], "optimizer.lr=fast: must be a number"),
    "learning rate below 0": (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
    "warm-up above all": (["scheduler.factor.warmup=2"], "scheduler.factor.warmup=2: must be a number of at least 0"),
    "seed": (["seed=-1"], "seed=-1: must be a whole number of at least 0"),
    "monitor": (["monitor=test/accuracy"], "monitor=test/accuracy: must be one of validation/nll, "),
    "monitor of two classes": (
        ["monitor=validation/auroc"],
        "monitor=validation/auroc: must be one of validation/accuracy, .*, validation/top5_accuracy$",
    ),
    "precision": (["trainer.precision=8"], "trainer: Precision 8 is invalid. Allowed precision values"),
    "half precision on a CPU": (
        ["trainer=cpu", "trainer.precision=16-mixed"],
        "trainer.precision=16-mixed: needs a GPU",
    ),
    "devices": (["trainer.devices=0"], "trainer.devices=0: must be a whole number of at least 1"),
    "strategy": (
        ["trainer.devices=2", "trainer.strategy=fsdp"],
        "trainer.strategy=fsdp: must be auto or ddp; FSDP has",
    ),
    "more processes than objects": (["trainer.devices=2000"], "trainer.devices=2000: must be at most "),
    "accelerator": (["trainer.accelerator=abacus"], "trainer.accelerator=abacus: must be one of auto, cpu, gpu"),
    "clipping": (["trainer.gradient_clip_val=0"], "trainer.gradient_clip_val=0: must be a number above 0"),
    "steps": (["trainer.max_steps=0"], f"trainer.max_steps=0: {WHOLE}"),
    **{
        f"no {stage}": ([f"trainer.limit_{stage}_batches=0"], f"trainer.limit_{stage}_batches=0: {LIMIT}")
        for stage in ("train", "val", "test")
    },
    "share of the validation that is no batch": (
        ["trainer.limit_val_batches=0.9"],
        "trainer.limit_val_batches=0.9: is less than one batch of 1; must be a larger share, or a number of batches",
    ),
    "share of an epoch that is no batch": (
        ["trainer.limit_train_batches=0.04"],
        "trainer.limit_train_batches=0.04: is less than one batch of 21",
    ),
    "share of the test that is no batch": (
        ["trainer.limit_test_batches=0.1"],
        "trainer.limit_test_batches=0.1: is less than one batch of 1",
    ),
    "validation after a share above 1": (["trainer.val_check_interval=1.5"], "trainer.val_check_interval=1.5: must be"),
    "validation after more than an epoch": (
        ["trainer.val_check_interval=11", "trainer.limit_train_batches=0.5"],
        "trainer.val_check_interval=11: must be at most 10, the batches of an epoch",
    ),
    "validation after epochs": (
        ["trainer.check_val_every_n_epoch=0"],
        "trainer.check_val_every_n_epoch=0: must be a whole number of at least 1, or auto or null",
    ),
    "validation after a share of all epochs": (
        ["trainer.check_val_every_n_epoch=null"],
        "trainer.check_val_every_n_epoch=None: needs a whole number of batches as val_check_interval",
    ),
    "rate that follows what is not measured": (
        ["scheduler=plateau", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=10"],
        "trainer.check_val_every_n_epoch=None: must be a number of epochs, so that the learning rate can follow",
    ),
    "time": (["trainer.max_time=1:30:00"], "trainer.max_time=1:30:00: must be days:hours:minutes:seconds above 0"),
    "logging": (["trainer.log_every_n_steps=-1"], "trainer.log_every_n_steps=-1: must be a whole number of at least 0"),
    "validation before training": (["trainer.num_sanity_val_steps=x"], "trainer.num_sanity_val_steps=x: must be a"),
    "run without a checkpoint": (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run=True: writes no checkpoint"),
    "what Lightning does not know": (["+trainer.steps=5"], "trainer: .*unexpected keyword argument 'steps'"),
    "nothing to train": (
        ["encoder=identity", "similarity.learn_scale=false"],
        "encoder: has no parameters to train; must have some, or be read by a similarity with learn_scale=true",
    ),
    "figures": (["figures=maybe"], "figures=maybe: must be true or false"),
    "compile": (["compile=maybe"], "compile=maybe: must be true or false"),
    "checkpoint missing": (["ckpt_path=none.ckpt"], "ckpt_path=none.ckpt: no such file"),
    "data root missing": (["data=mnist", "data.root=none", "data.download=false"], "data.root=none: lacks "),
    "output folder is a file": (["hydra.run.dir=file/run"], "file/run: Not a directory"),
    "output folder has files": (["hydra.run.dir=folder"], "hydra.run.dir=.*folder: must be a new or an empty folder"),
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("kept")


def assert_one_line(outcome: Outcome, message: str) -> None:
    assert outcome.status == 1
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    pattern = f"error: {message}".replace("?", r"\?")
    assert re.match(pattern, line), f"{line!r} does not begin as {pattern!r}"


def assert_nothing_left(outcome: Outcome) -> None:
    left = {str(path.relative_to(outcome.folder)) for path in outcome.folder.rglob("*")}
    assert left == {"file", "folder", "folder/precious"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_and_nothing_left(mistake: str, command: Callable[..., Outcome]) -> None:
    words, message = MISTAKES[mistake]
    outcome = command(*words)
    assert_one_line(outcome, message)
    assert_nothing_left(outcome)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_gpu_where_there_is_none(command: Callable[..., Outcome]) -> None:
    outcome = command("trainer=gpu")
    assert_one_line(outcome, "trainer.accelerator=gpu: this machine has none; must be auto or cpu here")
    assert_nothing_left(outcome)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_that_cannot_be_written(command: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "folder").chmod(0o500)
    outcome = command("hydra.run.dir=folder/run")
    assert_one_line(outcome, "folder/run: Permission denied")


def test_truncated_data(command: Callable[..., Outcome], tmp_path: Path) -> None:
    raw = write_idx(tmp_path / "folder")
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    outcome = command("data=mnist", "data.root=folder")
    assert_one_line(outcome, "data.root=folder: cannot read folder/MNIST/raw, a file there is truncated")
    assert not (outcome.folder / "outputs").exists()


def test_augmentation_that_cannot_take_the_objects(command: Callable[..., Outcome], tmp_path: Path) -> None:
    np.savez(tmp_path / "folder" / "table.npz", X=np.arange(600.0).reshape(200, 3), y=np.arange(200) % 2)
    outcome = command("data=tensors", "data.path=folder/table.npz", "encoder=mlp", "augmentation=affine")
    message = r"augmentation=RandomAffine: cannot take objects of shape \(3,\) \(.*needs images .*\); .* or none"
    assert_one_line(outcome, message)
    assert not (outcome.folder / "outputs").exists()


@pytest.mark.parametrize(("owner", "method"), [(StoredKeys, "encode"), (StoredKeys, "read"), (PixelKNN, "predict")])
def test_memory_that_runs_out_outside_of_a_training_step(
    owner: type, method: str, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(owner, method, run_out)
    outcome = command(*SMOKE)
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    *_, line = outcome.err.splitlines()
    assert line.startswith("error: out of memory outside of a training step; lower datamodule.eval_batch_size=1000, ")


class TestCheckpoint:
    @pytest.fixture
    def checkpoint(self, command: Callable[..., Outcome]) -> Path:
        return command(*SMOKE, "hydra.run.dir=run").folder / "run" / "checkpoints" / "last.ckpt"

    def refused(self, command: Callable[..., Outcome], path: Path, message: str, *words: str) -> None:
        outcome = command(f"ckpt_path={path}", *words)
        assert_one_line(outcome, f"ckpt_path={path}: {message}")
        assert not (outcome.folder / "outputs").exists()

    @pytest.mark.parametrize("size", [0, 100, 20000])
    def test_truncated(self, checkpoint: Path, command: Callable[..., Outcome], size: int) -> None:
        checkpoint.write_bytes(checkpoint.read_bytes()[:size])
        self.refused(command, checkpoint, "truncated, damaged or not a checkpoint")

    def test_something_else(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        torch.save({"weights": torch.zeros(3)}, tmp_path / "folder" / "other.ckpt")
        self.refused(command, tmp_path / "folder" / "other.ckpt", "not a checkpoint of memlab")

    def test_of_another_encoder(self, checkpoint: Path, command: Callable[..., Outcome]) -> None:
        self.refused(
            command, checkpoint, "holds the encoder Conv, and the model has MLP; must be the same", "encoder=mlp"
        )

    def test_of_another_similarity(self, checkpoint: Path, command: Callable[..., Outcome]) -> None:
        message = "holds the similarity Euclidean, and the model has Cosine; must be the same"
        self.refused(command, checkpoint, message, "similarity=cosine", "similarity.scale=1")

    @pytest.mark.parametrize("number", [None, 0])
    def test_of_another_format(self, checkpoint: Path, command: Callable[..., Outcome], number: int | None) -> None:
        content = torch.load(checkpoint, weights_only=True)
        content["memlab"] = {} if number is None else {"format": number}
        torch.save(content, checkpoint)
        checkpoint.with_name("last.ckpt.sha256").unlink()
        self.refused(command, checkpoint, "written by another version of memlab; must be of this one")

    def test_of_another_size(self, checkpoint: Path, command: Callable[..., Outcome]) -> None:
        message = r"has encoder.normalise.weight of shape \(64,\), and the model \(32,\); must be the same"
        self.refused(command, checkpoint, message, "encoder.embedding_size=32")

    def test_of_other_classes(self, checkpoint: Path, command: Callable[..., Outcome], tmp_path: Path) -> None:
        write_idx(tmp_path / "clothes", folder="FashionMNIST")
        message = r"was trained on the classes 0, 1, 2, 3, 4, ... \(10\), and the data has T-shirt/top, "
        words = ("data=fashion_mnist", "data.root=clothes", "support.size=50")
        self.refused(command, checkpoint, message, *words)

    def test_of_a_run_that_is_as_long_already(self, checkpoint: Path, command: Callable[..., Outcome]) -> None:
        outcome = command(f"ckpt_path={checkpoint}", "trainer.max_epochs=1")
        assert_one_line(
            outcome, "trainer.max_epochs=1: must be above 1, the epochs that .*last.ckpt has behind it already"
        )
        outcome = command(f"ckpt_path={checkpoint}", "trainer.max_steps=2")
        assert_one_line(
            outcome, "trainer.max_steps=2: must be above 2, the steps that .*last.ckpt has behind it already"
        )
        content = torch.load(checkpoint, weights_only=True)
        content["callbacks"]["Timer"]["time_elapsed"]["train"] = 60.5
        torch.save(content, checkpoint)
        checkpoint.with_name("last.ckpt.sha256").unlink()
        outcome = command(f"ckpt_path={checkpoint}", "trainer.max_time=00:00:01:00")
        assert_one_line(
            outcome, "trainer.max_time=60: must be above 60, the seconds that .*last.ckpt has behind it already"
        )


class TestSweep:
    def test_mistake_in_all_jobs_is_one_line_and_leaves_nothing(self, command: Callable[..., Outcome]) -> None:
        outcome = command("-m", "encoder=cnov,conv")
        assert_one_line(outcome, NO_ENCODER)
        assert_nothing_left(outcome)

    def test_mistake_in_one_job_costs_that_job_alone(self, command: Callable[..., Outcome]) -> None:
        outcome = command("-m", "support.size=0,100", *SMOKE)
        assert outcome.status == 1
        assert "job 0 failed: support.size=0: must be a whole number of at least 1" in outcome.out
        (sweep,) = outcome.run_folders
        assert (sweep / "1" / "results.json").is_file()
        assert [file.name for file in (sweep / "0").iterdir()] == ["failed.json"]


def test_what_only_lightning_sees_when_training_is_under_way_is_one_line(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def misconfigured(*_: object) -> None:
        raise MisconfigurationException("two lines\nof advice")

    for hook in ("on_fit_start", "on_test_start"):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryClassifier, hook, misconfigured)
            outcome = command(*SMOKE)
            assert outcome.status == 1
            assert outcome.err.splitlines() == ["error: two lines; of advice"]


def test_traceback_is_shown_on_request(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "SHOW_TRACEBACKS", True)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(mistakes.UserError, match=r"support\.size=0"):
        command("support.size=0")
