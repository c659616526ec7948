"""A run that is killed anywhere and gone on with ends as one that never was: to the bit, in real processes."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from memlab.signals import TRY_AGAIN
from memlab.training.checkpoint_files import digest_of
from memlab.training.checkpoints import newest_checkpoint
from tests.conftest import SMOKE, Outcome
from tests.processes import Kill, start, status_of
from tests.runs.test_mistakes import assert_one_line

QUIET = ("trainer.enable_progress_bar=false", "figures=false", "baselines=[]", "hydra.run.dir=run")
RUNS = {
    "full": ("trainer.max_epochs=3",),
    "chunked with dropout": (
        "trainer.max_epochs=3",
        "memory=chunked",
        "memory.chunk_size=150",
        "encoder=mlp",
        "encoder.dropout=0.3",
    ),
    "topk": ("trainer.max_epochs=2", "memory=topk"),
    "hops": ("trainer.max_epochs=3", "memory=chunked", "memory.chunk_size=150", "memory.hops=2", "memory.values=tabr"),
    "topk with ages": (
        "trainer.max_epochs=2",
        "memory=topk",
        "memory.refresh_every=null",
        "memory.max_age=7",
        "augmentation=none",
        "memory/index=ivf",
    ),
    "balanced, two workers": ("trainer.max_epochs=3", "support=balanced", "datamodule.num_workers=2"),
    "accumulation in bf16": (
        "trainer.max_epochs=3",
        "trainer.accumulate_grad_batches=4",
        "trainer.precision=bf16-mixed",
    ),
    "validations within epochs, plateau": (
        "trainer.max_steps=50",
        "trainer.val_check_interval=8",
        "scheduler=plateau",
        "callbacks=early_stopping",
    ),
    "prototypes in float64": (
        "trainer.max_epochs=3",
        "memory=prototypes",
        "optimizer=sgd",
        "trainer.precision=64-true",
    ),
}
VARIES = {"fit_seconds", "wall_time_seconds", "peak_memory_bytes", "overrides", "baselines", "train/refresh_share"}


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, times apart."""
    run = folder / "run"
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    results = json.loads((run / "results.json").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        **{f"weights {name}": value for name, value in last["state_dict"].items()},
        "optimizer": last["optimizer_states"],
        "schedules": last["lr_schedulers"],
        "memory": last["memory"],
        "batches": last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"],
        "results": {name: value for name, value in results.items() if name not in VARIES},
        "metrics": [{name: row[name] for name in row if name not in VARIES} for row in rows],
        **{name: (run / name).read_bytes() for name in ("predictions.csv", "confusion.csv")},
        "trained memory": json.loads((run / "memory" / "memory.json").read_text())["segments"],
    }


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[name], second[name]) for name in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return [name for name in first if not equal(first[name], second.get(name))]


Undisturbed = Callable[[str], tuple[dict[str, Any], float]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What a run comes to that nobody interrupts, and how long it takes; computed once each."""
    known: dict[str, tuple[dict[str, Any], float]] = {}

    def come_to(name: str) -> tuple[dict[str, Any], float]:
        if name not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            began = time.monotonic()
            assert status_of(start(*QUIET, *RUNS[name], folder=folder)) == 0, (folder / "said.txt").read_text()
            known[name] = outcome(folder), time.monotonic() - began
        return known[name]

    return come_to


MOMENTS = [
    ("full", "on_train_batch_start", 1, signal.SIGKILL),
    ("full", "on_train_batch_start", 22, signal.SIGTERM),
    ("chunked with dropout", "on_train_batch_start", 61, signal.SIGINT),
    ("chunked with dropout", "on_validation_batch_end", 6, signal.SIGTERM),
    ("hops", "on_train_batch_end", 30, signal.SIGTERM),
    ("accumulation in bf16", "on_train_batch_end", 24, signal.SIGTERM),
    ("topk with ages", "on_train_batch_end", 9, signal.SIGUSR1),
    ("topk with ages", "on_validation_start", 2, signal.SIGTERM),
    ("balanced, two workers", "on_train_batch_end", 21, signal.SIGTERM),
    ("validations within epochs, plateau", "on_validation_end", 2, signal.SIGKILL),
    ("validations within epochs, plateau", "on_test_batch_end", 1, signal.SIGTERM),
]


@pytest.mark.parametrize(("name", "hook", "call", "number"), MOMENTS)
def test_run_killed_at_some_moment_ends_as_if_it_had_not_been(
    tmp_path: Path, undisturbed: Undisturbed, name: str, hook: str, call: int, number: signal.Signals
) -> None:
    expected, _ = undisturbed(name)
    status = status_of(start(*QUIET, *RUNS[name], folder=tmp_path, kill=Kill(hook, call, number)))
    assert status == (-number if number == signal.SIGKILL else TRY_AGAIN)
    assert status_of(start("resume=run", folder=tmp_path)) == 0, (tmp_path / "said.txt").read_text()
    assert differences(expected, outcome(tmp_path)) == []


def test_chunk_halved_for_want_of_memory_is_so_when_the_run_goes_on(tmp_path: Path) -> None:
    scarce = ("encoder._target_=tests.processes.Scarce", "+encoder.calls=40")
    words = (*QUIET, *RUNS["chunked with dropout"], *scarce)
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"
    for folder in (straight, interrupted):
        folder.mkdir()
    assert status_of(start(*words, folder=straight)) == 0
    assert "with chunks of 150 objects: computed again and going on with 75" in (straight / "said.txt").read_text()
    kill = Kill("on_train_batch_start", 30, signal.SIGTERM)
    assert status_of(start(*words, folder=interrupted, kill=kill)) == TRY_AGAIN
    assert status_of(start("resume=run", scarce[0], folder=interrupted)) == 0, (interrupted / "said.txt").read_text()
    assert differences(outcome(straight), outcome(interrupted)) == []


@pytest.mark.stress
@pytest.mark.parametrize("trial", range(200))
def test_run_killed_at_random_ends_as_if_it_had_not_been(tmp_path: Path, undisturbed: Undisturbed, trial: int) -> None:
    chance = random.Random(trial)
    name = chance.choice(sorted(RUNS))
    expected, seconds = undisturbed(name)
    words: tuple[str, ...] = (*QUIET, *RUNS[name])
    sent = []
    for _ in range(chance.randint(1, 3)):
        process = start(*words, folder=tmp_path)
        number = chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
        process.join(chance.uniform(0.1, 1.0) * seconds)
        if process.is_alive():
            os.kill(process.pid or 0, number)
        sent.append((number.name, status := status_of(process)))
        assert status in (0, TRY_AGAIN, -number), (tmp_path / "said.txt").read_text()
        if (tmp_path / "run" / "overrides.yaml").is_file():
            words = ("resume=run",)
    assert status_of(start(*words, folder=tmp_path)) == 0, (sent, (tmp_path / "said.txt").read_text())
    assert differences(expected, outcome(tmp_path)) == [], (name, sent)


@pytest.mark.stress
def test_what_is_not_a_function_of_seed_epoch_and_step_is_seen(tmp_path: Path) -> None:
    """The trials above can fail: of as many runs that draw in turn, interrupted in training, hardly any agree."""
    expected: dict[str, dict[str, Any]] = {}
    agreed = 0
    for trial in range(200):
        chance = random.Random(trial)
        name = chance.choice(sorted(RUNS))
        words = (*QUIET, *RUNS[name])
        if name not in expected:
            (folder := tmp_path / name).mkdir()
            assert status_of(start(*words, folder=folder, keyed=False)) == 0, (folder / "said.txt").read_text()
            expected[name] = outcome(folder)
        (folder := tmp_path / str(trial)).mkdir()
        number = chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
        kill = Kill("on_train_batch_start", chance.randint(2, expected[name]["batches"] - 1), number)
        assert status_of(start(*words, folder=folder, kill=kill, keyed=False)) == TRY_AGAIN
        assert status_of(start("resume=run", folder=folder, keyed=False)) == 0, (folder / "said.txt").read_text()
        agreed += not differences(expected[name], outcome(folder))
        shutil.rmtree(folder)
    print(f"{agreed} of 200 agree")
    assert agreed < 20


class TestFolder:
    def test_of_a_run_that_has_ended_says_so(self, command: Callable[..., Outcome]) -> None:
        command(*SMOKE, "hydra.run.dir=run")
        before = (Path("run") / "results.json").read_bytes()
        outcome = command("resume=run")
        assert (outcome.status, outcome.out) == (
            0,
            "run has come to its end: run/results.json; there is nothing to go on with\n",
        )
        assert (Path("run") / "results.json").read_bytes() == before

    def test_of_a_run_that_is_to_be_another_is_refused_by_name(self, command: Callable[..., Outcome]) -> None:
        command(*SMOKE, "hydra.run.dir=run")
        (Path("run") / "results.json").unlink()
        outcome = command("resume=run", "optimizer.lr=0.1")
        assert_one_line(outcome, r"optimizer.lr=0.1: was 0.002 in \S*run, and must stay so when the run goes on; ")

    def test_of_a_run_that_was_killed_while_it_said_what_it_is(self, command: Callable[..., Outcome]) -> None:
        command(*SMOKE, "hydra.run.dir=run")
        before = (Path("run") / "predictions.csv").read_bytes()
        for entry in Path("run").iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "overrides.yaml":
                entry.unlink()
        (Path("run") / "config.yaml.unfinished").touch()
        outcome = command("resume=run")
        assert outcome.status == 0, outcome.err
        assert (Path("run") / "predictions.csv").read_bytes() == before

    def test_of_a_run_that_is_to_be_longer(self, command: Callable[..., Outcome]) -> None:
        words = [word for word in SMOKE if word != "trainer=smoke"]
        command(*words, "trainer.max_epochs=2", "scheduler=constant", "hydra.run.dir=straight")
        command(*words, "trainer.max_epochs=1", "scheduler=constant", "hydra.run.dir=run")
        (Path("run") / "results.json").unlink()
        outcome = command("resume=run", "trainer.max_epochs=2")
        assert outcome.status == 0, outcome.err
        straight, longer = (
            torch.load(Path(name) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for name in ("straight", "run")
        )
        assert equal(straight, longer)

    @pytest.mark.parametrize("there", [False, True])
    def test_that_holds_no_run_is_refused(self, command: Callable[..., Outcome], tmp_path: Path, there: bool) -> None:
        if there:
            (tmp_path / "folder").mkdir()
        outcome = command("resume=folder")
        assert_one_line(outcome, "resume=folder: (there is no such folder|holds no run to go on with); must be ")

    @pytest.mark.parametrize(
        "word",
        [
            "encoder._target_=os.system",
            "+encoder._target_=os.system",
            "encoder._target_=memlab.benchmark.whole_commands.subprocess.Popen",
            "optimizer={_target_: os.system, command: 'touch ran'}",
            "optimizer._target_=${data._target_}",
            "hydra.job_logging.handlers.file={'()': os.system}",
            "--config-dir=/tmp",
            "optimizer=../../../../../../../..{here}/evil",
            "experiment=/../../../../../../../..{here}/evil",
            "+experiment@encoder=../../../../../../../..{here}/evil",
            "+encoder.more='${{oc.decode:\"{{_tar${{oc.select:none,get}}_: os.mkdir, path: ran}}\"}}'",
        ],
    )
    def test_of_somebody_else_runs_nothing_of_theirs(self, command: Callable[..., Outcome], word: str) -> None:
        command(*SMOKE, "hydra.run.dir=run")
        (Path("run") / "results.json").unlink()
        Path("evil.yaml").write_text("_target_: os.mkdir\npath: ran\n")
        if "{here}" in word or "${{" in word:
            word = word.format(here=Path.cwd())
        with (Path("run") / "overrides.yaml").open("a") as file:
            file.write(f"- {json.dumps(word)}\n")
        outcome = command("resume=run")
        assert_one_line(outcome, "resume=run: was started with ")
        assert not Path("ran").exists()

    def test_of_a_run_with_a_class_of_ones_own_takes_it_when_it_is_named_again(
        self, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "own_mlp.py").write_text("from memlab.encoders import MLP\nclass Own(MLP): pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_mlp", raising=False)
        own = "encoder._target_=own_mlp.Own"
        assert command(*SMOKE, "encoder=mlp", own, "hydra.run.dir=run").status == 0
        (Path("run") / "results.json").unlink()
        assert_one_line(command("resume=run"), f"resume=run: was started with {own}, a class that is not of memlab; ")
        outcome = command("resume=run", own)
        assert outcome.status == 0, outcome.err

    def test_of_a_sweep_goes_on_with_the_jobs_that_have_not_ended(self, command: Callable[..., Outcome]) -> None:
        words = ("-m", *SMOKE, "support.size=50,100,150")
        command(*words, "hydra.sweep.dir=straight")
        command(*words, "hydra.sweep.dir=sweep")
        kept = (Path("sweep") / "0" / "results.json").read_bytes()
        (Path("sweep") / "1" / "results.json").unlink()
        shutil.rmtree(Path("sweep") / "2")
        assert_one_line(command("resume=sweep"), "resume=sweep: is the folder of a sweep; go on with it by ")
        outcome = command("-m", "resume=sweep")
        assert outcome.status == 0, outcome.err
        assert (Path("sweep") / "0" / "results.json").read_bytes() == kept
        found, expected = (
            [{name: row[name] for name in row if name not in VARIES} for row in csv.DictReader(file.open())]
            for file in (Path("sweep") / "sweep.csv", Path("straight") / "sweep.csv")
        )
        assert found == expected


class TestDamage:
    @pytest.fixture
    def run(self, command: Callable[..., Outcome]) -> Path:
        """A run of two epochs that was stopped before its test."""
        words = [word for word in SMOKE if word != "trainer=smoke"]
        command(*words, "trainer.max_epochs=2", "hydra.run.dir=run")
        (Path("run") / "results.json").unlink()
        return Path("run")

    @pytest.mark.parametrize(
        "damaged", [["last"], ["best"], ["last", "best"], ["last", "before_last", "best", "before_best"]]
    )
    def test_is_seen_and_an_earlier_checkpoint_taken(
        self, run: Path, command: Callable[..., Outcome], damaged: list[str]
    ) -> None:
        best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        chance = random.Random(len(damaged))
        for name in damaged:
            file = run / "checkpoints" / f"{name}.ckpt"
            content = bytearray(file.read_bytes())
            if chance.random() < 0.5:
                del content[chance.randrange(len(content)) :]
            else:
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
        outcome = command("resume=run")
        assert outcome.status == 0, outcome.err
        for name in damaged:
            assert (run / "checkpoints" / f"damaged_{name}.ckpt").is_file()
            assert f"{name}.ckpt: truncated, damaged or not a checkpoint" in (run / "train.log").read_text()
        assert equal(torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"], best)


class Prepared(NamedTuple):
    """A run that was killed in its third epoch, and what it comes to if it is not."""

    folder: Path
    straight: dict[str, Any]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    straight, folder = (tmp_path_factory.mktemp(name) for name in ("straight", "prepared"))
    words = (*QUIET, *SMALL)
    assert status_of(start(*words, folder=straight)) == 0, (straight / "said.txt").read_text()
    assert status_of(start(*words, folder=folder, kill=Kill("on_train_batch_start", 16, signal.SIGKILL))) < 0
    assert {path.name for path in (folder / "run" / "checkpoints").iterdir()} == {
        f"{before}{name}.ckpt{beside}"
        for before in ("", "before_")
        for name in ("last", "best")
        for beside in ("", ".sha256")
    }
    return Prepared(folder, outcome(straight))


SMALL = ("trainer.max_epochs=3", "encoder=linear", "encoder.embedding_size=8", "data.train_fraction=0.3")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """What may become of a file: cut, emptied, a bit turned, a page of zeros, bytes behind it."""
    place, page = chance.randrange(len(content)), b"\0" * min(4096, len(content))
    kinds = {
        "cut": lambda: content[:place],
        "emptied": lambda: b"",
        "turned": lambda: content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :],
        "zeros": lambda: (content[:place] + page + content[place + len(page) :])[: len(content)],
        "longer": lambda: content + chance.randbytes(chance.randint(1, 5000)),
    }
    return kinds[chance.choice(sorted(kinds))]()


@pytest.mark.parametrize(
    "trial", [pytest.param(trial, marks=[pytest.mark.stress] if trial >= 3 else []) for trial in range(200)]
)
def test_damaged_files_are_never_gone_on_with(tmp_path: Path, prepared: Prepared, trial: int) -> None:
    chance = random.Random(trial)
    folder = tmp_path / "copy"
    checkpoints = folder / "run" / "checkpoints"
    shutil.copytree(prepared.folder, folder)
    hit = []
    files = sorted(checkpoints.iterdir())
    for file in chance.sample(files, chance.randint(1, len(files))):
        content = file.read_bytes()
        file.write_bytes(damaged(content, chance))
        hit += [file.name] if file.read_bytes() != content else []
    assert status_of(start("resume=run", folder=folder)) == 0, (folder / "said.txt").read_text()
    log = (folder / "run" / "train.log").read_text()
    used = re.search(r"goes on from (\S+), after", log)
    print(f"damaged: {', '.join(hit) or 'none'}; used: {used[1] if used else 'none'}")
    aside = {path.name.removeprefix("damaged_") for path in checkpoints.glob("damaged_*")}
    assert {name for name in hit if name.endswith(".ckpt")} <= aside  # those whose checksum was hit may be in doubt
    assert aside <= {name.removesuffix(".sha256") for name in hit}
    assert all(f"{name}: truncated, damaged or not a checkpoint" in log for name in aside)
    assert (used is None) == ({"best.ckpt", "before_best.ckpt"} <= aside)
    assert differences(prepared.straight, outcome(folder)) == []


def test_run_whose_last_checkpoint_is_lost_has_one_again_though_it_had_ended(
    tmp_path: Path, prepared: Prepared
) -> None:
    assert status_of(start(*QUIET, *SMALL, folder=tmp_path, kill=Kill("on_test_start", 1, signal.SIGKILL))) < 0
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "last.ckpt").write_bytes(b"")
    assert status_of(start("resume=run", folder=tmp_path)) == 0, (tmp_path / "said.txt").read_text()
    assert differences(prepared.straight, outcome(tmp_path)) == []


class Touch:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


class TestForeignCheckpoint:
    """One that does something when it is unpickled, with a checksum that fits and without one."""

    @pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
    @pytest.mark.parametrize("content", [{"memlab": Touch()}, {"state_dict": {"weight": Touch()}}, Touch()])
    @pytest.mark.parametrize("known", [True, False])
    def test_is_put_aside(self, prepared: Prepared, tmp_path: Path, name: str, content: Any, known: bool) -> None:
        checkpoints = tmp_path / "checkpoints"
        shutil.copytree(prepared.folder / "run" / "checkpoints", checkpoints)
        write_foreign(checkpoints / name, content, known=known)
        newest = newest_checkpoint(checkpoints)
        assert newest is not None
        assert newest == checkpoints / "last.ckpt"
        best = digest_of(checkpoints / "best.ckpt")
        assert torch.load(newest, weights_only=True)["resume"]["best"] == best
        assert (checkpoints / f"damaged_{name}").is_file()
        assert not Path("ran").exists()

    @pytest.mark.parametrize("known", [True, False])
    def test_is_refused(self, command: Callable[..., Outcome], tmp_path: Path, known: bool) -> None:
        write_foreign(tmp_path / "foreign.ckpt", {"memlab": Touch()}, known=known)
        outcome = command(*SMOKE, "ckpt_path=foreign.ckpt")
        assert_one_line(outcome, "ckpt_path=foreign.ckpt: truncated, damaged or not a checkpoint .UnpicklingError.; ")
        assert not (tmp_path / "ran").exists()


def write_foreign(path: Path, content: Any, *, known: bool) -> None:
    torch.save(content, path)
    beside = path.with_name(f"{path.name}.sha256")
    if known:
        beside.write_text(digest_of(path))
    else:
        beside.unlink(missing_ok=True)


@pytest.mark.parametrize("scheme", ["https://", "s3://", "file://", "memory://"])
@pytest.mark.parametrize("parameter", ["ckpt_path", "resume"])
def test_address_is_not_fetched(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, parameter: str, scheme: str
) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("socket.socket.connect", connect)
    outcome = command(*SMOKE, f"{parameter}={scheme}host/place")
    assert_one_line(
        outcome, f"{parameter}={scheme}host/place: is an address; must be a (file|folder) here, copy it first"
    )
