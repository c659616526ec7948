"""A run of several processes learns, measures and leaves what a run of one does: real processes, gloo, float64."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, distributed

from memlab.runs.job import train
from memlab.signals import TRY_AGAIN
from tests.conftest import REPOSITORY
from tests.processes import Kill, start, start_together, status_of

COMMON = (
    "trainer.enable_progress_bar=false",
    "trainer.precision=64-true",
    "trainer.max_epochs=2",
    "data.train_fraction=0.3",
    "figures=false",
    "baselines=[]",
    "hydra.run.dir=run",
)
RUNS = {
    "full, augmented": ("encoder=lenet", "encoder.dropout=0.3", "augmentation=affine", "support.size=101"),
    "chunked": ("memory=chunked", "memory.chunk_size=30", "encoder=lenet", "encoder.dropout=0.3", "support.size=101"),
    "topk": ("memory=topk", "encoder=mlp", "encoder.dropout=0.2"),
    "topk, ages": ("memory=topk", "memory.refresh_every=null", "memory.max_age=5", "encoder=mlp"),
    "topk, hops": (
        "memory=topk",
        "memory.hops=2",
        "memory.values=tabr",
        "memory.hop_keys=apart",
        "memory.value_dropout=0.2",
        "encoder=mlp",
        "encoder.dropout=0.2",
    ),
    "prototypes, learned scale": ("memory=prototypes", "similarity.learn_scale=true", "datamodule.batch_size=37"),
    "linear, accumulated and clipped": (
        "memory=linear",
        "trainer.accumulate_grad_batches=3",
        "trainer.gradient_clip_val=0.1",
    ),
    "validations within epochs, plateau": (
        "scheduler=plateau",
        "trainer.val_check_interval=2",
        "callbacks=early_stopping",
    ),
}
OF_ITS_OWN = re.compile(r"seconds|peak_memory|overrides|processes|refresh_share")
"""Figures that are of the machine, not of what is computed."""


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return found


def results(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "run/results.json").read_text())
    return {name: value for name, value in found.items() if not OF_ITS_OWN.search(name)}


def assert_ends_alike(folder: Path, expected: Path) -> None:
    torch.testing.assert_close(weights(folder), weights(expected), rtol=1e-10, atol=1e-11)
    found, wanted = results(folder), results(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, float):
            exact = name.startswith("test/")
            assert found[name] == (value if exact else pytest.approx(value, rel=1e-4)), name
        else:
            assert found[name] == value, name
    lines = [(each / "run/metrics.csv").read_text().count("\n") for each in (folder, expected)]
    assert lines[0] == lines[1]  # written once


def in_one(folder: Path, *words: str) -> Path:
    folder.mkdir()
    assert status_of(start(*COMMON, *words, folder=folder)) == 0
    return folder


def together(world: int, folder: Path, *words: str) -> list[int]:
    folder.mkdir(exist_ok=True)
    return [*map(status_of, start_together(world, *COMMON, *words, folder=folder))]


@pytest.mark.parametrize("words", RUNS.values(), ids=list(RUNS))
def test_equals_a_run_of_one_process(words: tuple[str, ...], tmp_path: Path) -> None:
    alone = in_one(tmp_path / "alone", *words)
    assert together(3, tmp_path / "three", *words) == [0, 0, 0]
    assert_ends_alike(tmp_path / "three", alone)
    said = (tmp_path / "three/said.txt").read_text()
    assert said.count("run folder") == 1
    assert "Warning" not in said
    assert sorted(each.name for each in (tmp_path / "three/run").iterdir()) == sorted(
        each.name for each in (alone / "run").iterdir()
    )


@pytest.mark.parametrize("world", [2, 5])
def test_batches_and_sets_need_not_divide(world: int, tmp_path: Path) -> None:
    """The last batches of an epoch and of the test have fewer queries than there are processes."""
    words = ("datamodule.batch_size=96", "datamodule.eval_batch_size=119", "trainer.max_epochs=1")
    alone = in_one(tmp_path / "alone", *words)
    assert together(world, tmp_path / "several", *words) == [0] * world
    assert_ends_alike(tmp_path / "several", alone)


def test_keys_of_the_trained_memory_are_put_together(tmp_path: Path) -> None:
    import memlab

    alone = in_one(tmp_path / "alone", "memory.hops=2")
    assert together(2, tmp_path / "two", "memory.hops=2") == [0, 0]
    assert_ends_alike(tmp_path / "two", alone)
    queries = torch.randint(17, (9, 1, 8, 8), dtype=torch.uint8)
    first, second = (memlab.load(each / "run").predict(queries) for each in (alone, tmp_path / "two"))
    assert first.probabilities == pytest.approx(second.probabilities, rel=1e-10)
    assert (first.evidence.ids == second.evidence.ids).all()
    assert all((one.ids == other.ids).all() for one, other in zip(first.hops, second.hops, strict=True))
    assert len(first.hops) == 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_other_precisions_come_as_near_as_they_can(precision: str, tmp_path: Path) -> None:
    words = (f"trainer.precision={precision}", "trainer.max_epochs=null", "trainer.max_steps=3")
    alone = in_one(tmp_path / "alone", *words)
    assert together(3, tmp_path / "three", *words) == [0, 0, 0]
    tolerance = 1e-5 if precision == "32-true" else 5e-3
    torch.testing.assert_close(weights(tmp_path / "three"), weights(alone), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("world", [3, 1])
def test_what_several_have_begun_others_go_on_with(world: int, tmp_path: Path) -> None:
    """A signal to one process ends all at the same step; the rest is computed by more of them, or by one."""
    words = RUNS["topk, ages"]
    alone = in_one(tmp_path / "alone", *words)
    folder = tmp_path / "two"
    folder.mkdir()
    kills = {1: Kill("on_train_batch_start", 9, signal.SIGTERM)}
    statuses = map(status_of, start_together(2, *COMMON, *words, folder=folder, kills=kills))
    assert [*statuses] == [TRY_AGAIN, TRY_AGAIN]
    assert "error: interrupted by SIGTERM; go on with python train.py resume=run" in (folder / "said.txt").read_text()
    if world == 1:
        assert status_of(start("resume=run", "trainer.devices=1", folder=folder)) == 0
    else:
        assert [*map(status_of, start_together(world, "resume=run", folder=folder))] == [0] * world
    assert_ends_alike(folder, alone)


def test_what_one_has_begun_several_go_on_with(tmp_path: Path) -> None:
    words = RUNS["topk, ages"]
    alone = in_one(tmp_path / "alone", *words)
    folder = tmp_path / "one"
    folder.mkdir()
    kill = Kill("on_validation_batch_start", 2, signal.SIGTERM)
    assert status_of(start(*COMMON, *words, folder=folder, kill=kill)) == TRY_AGAIN
    assert [*map(status_of, start_together(2, "resume=run", folder=folder))] == [0, 0]
    assert_ends_alike(folder, alone)


def test_the_others_end_when_one_is_killed_and_any_number_goes_on(tmp_path: Path) -> None:
    alone = in_one(tmp_path / "alone")
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = {1: Kill("on_train_batch_start", 9, signal.SIGKILL)}  # in the second epoch
    begun_at = time.monotonic()
    statuses = map(status_of, start_together(3, *COMMON, folder=folder, kills=kills))
    assert [*statuses] == [1, -signal.SIGKILL, 1]
    assert time.monotonic() - begun_at < 60
    for world in (1, 2, 3):
        shutil.copytree(folder, tmp_path / str(world))
        processes = start_together(world, "resume=run", folder=tmp_path / str(world))
        assert [*map(status_of, processes)] == [0] * world
        assert_ends_alike(tmp_path / str(world), alone)
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said
    assert "error: another process: is gone, and without it this one cannot go on" in said


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of one process, begun once in a session."""
    folder = tmp_path_factory.mktemp("undisturbed")
    names = list(RUNS)

    def made(name: str) -> Path:
        place = folder / str(names.index(name))
        return place if place.exists() else in_one(place, *RUNS[name])

    return made


HOOKS = {
    "on_train_batch_start": 12,
    "on_before_optimizer_step": 4,
    "on_train_epoch_end": 2,
    "on_validation_batch_start": 4,
    "on_save_checkpoint": 4,
    "on_test_batch_start": 1,
    "on_fit_start": 1,
}


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(60))
def test_whatever_comes_to_any_of_them_at_any_time(
    seed: int, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    """None hangs, and however many go on end as one that was left alone."""
    draw = random.Random(seed)
    name, world, others = draw.choice(list(RUNS)), draw.choice([2, 3]), draw.choice([1, 2, 3])
    hook = draw.choice(list(HOOKS))
    number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    kill = Kill(hook, draw.randint(1, HOOKS[hook]), number)
    begun_at = time.monotonic()
    begun = start_together(world, *COMMON, *RUNS[name], folder=tmp_path, kills={draw.randrange(world): kill})
    statuses = [*map(status_of, begun)]
    assert time.monotonic() - begun_at < 60
    said = (tmp_path / "said.txt").read_text()
    assert "Traceback" not in said
    if statuses == [0] * world:  # a hook that is not called so often
        assert_ends_alike(tmp_path, undisturbed(name))
        return
    assert 0 not in statuses or "on_test" in hook
    assert [*map(status_of, start_together(others, "resume=run", folder=tmp_path))] == [0] * others
    assert_ends_alike(tmp_path, undisturbed(name))


def counted(cfg: Any, folder: Path) -> float:
    """Train, and leave how many entries each all-reduce had."""
    as_it_is, entries = distributed.all_reduce, []

    def noting(tensor: Tensor, *words: Any, **rest: Any) -> Any:
        entries.append(tensor.numel())
        return as_it_is(tensor, *words, **rest)

    distributed.all_reduce = noting
    score = train(cfg, folder)
    if os.environ["RANK"] == "0":
        (folder / "entries.json").write_text(json.dumps(entries))
    return score


def test_gradients_of_parameters_are_added_up_once_in_a_step(tmp_path: Path) -> None:
    words = ("trainer.max_epochs=null", "trainer.max_steps=4", "trainer.accumulate_grad_batches=2")
    statuses = map(status_of, start_together(2, *COMMON, *words, folder=tmp_path, training=counted))
    assert [*statuses] == [0, 0]
    shapes = weights(tmp_path).values()
    entries = json.loads((tmp_path / "run/entries.json").read_text())
    assert entries.count(sum(each.numel() for each in shapes) + len(shapes)) == 4


def test_training_that_diverges_is_told_once(tmp_path: Path) -> None:
    statuses = map(status_of, start_together(2, *COMMON, "optimizer.lr=1e200", folder=tmp_path))
    assert [*statuses] == [1, 1]
    assert (tmp_path / "said.txt").read_text().count("error: train/loss=nan in step") == 1
    found = json.loads((tmp_path / "run/nonfinite.json").read_text())
    assert len(found["objects"][0]) == 64
    assert (tmp_path / "run/checkpoints/nonfinite.ckpt").is_file()


def test_processes_from_outside_must_be_told_of_one_folder(tmp_path: Path) -> None:
    words = [word for word in COMMON if not word.startswith("hydra.run.dir")]
    statuses = map(status_of, start_together(2, *words, folder=tmp_path))
    assert [*statuses] == [1, 1]
    assert (
        "error: hydra.run.dir: must be given where processes are started from outside"
        in (tmp_path / "said.txt").read_text()
    )


def test_as_many_processes_as_were_started(tmp_path: Path) -> None:
    """Each would else train for itself, in the same folder."""
    statuses = map(status_of, start_together(2, *COMMON, "trainer.devices=1", folder=tmp_path))
    assert [*statuses] == [1, 1]
    said = (tmp_path / "said.txt").read_text()
    assert said.count("error: trainer.devices=1: times trainer.num_nodes=1 must be 2, as many processes as") == 2


def test_jobs_of_a_sweep_have_a_process_each(tmp_path: Path) -> None:
    words = ("-m", *COMMON, "trainer.devices=2", "seed=0,1", "hydra.sweep.dir=sweep")
    assert status_of(start(*words, folder=tmp_path)) == 1
    assert (
        "error: trainer.devices=2: must be 1 in a sweep, whose jobs are run beside one another"
        in (tmp_path / "said.txt").read_text()
    )


def command(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *COMMON, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_command_starts_all_and_leaves_none_behind(tmp_path: Path) -> None:
    """And when the process that it has started is killed, it says so, ends, and can be gone on with."""
    words = ("trainer.devices=2", "trainer.check_val_every_n_epoch=1")
    begun = command(*words, "trainer.max_epochs=4000", folder=tmp_path)
    others: list[psutil.Process] = []
    while not (others and (tmp_path / "run/checkpoints/last.ckpt").exists()):
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.2)
        others = psutil.Process(begun.pid).children()
    others[0].kill()
    killed_at = time.monotonic()
    _, said = begun.communicate()
    assert begun.returncode == 1
    assert time.monotonic() - killed_at < 60
    assert said == "error: rank 1 was ended by SIGKILL: is gone, and without it this one cannot go on\n"
    assert not psutil.pid_exists(others[0].pid)
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    epochs = last["epoch"] + 2
    gone_on = command("resume=run", "trainer.devices=2", f"trainer.max_epochs={epochs}", folder=tmp_path)
    _, said = gone_on.communicate()
    assert gone_on.returncode == 0, said
    assert results(tmp_path)["epochs"] == epochs
