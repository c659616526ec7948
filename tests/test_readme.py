"""README tells the truth: its commands run, its tables are complete, and CI runs its first two commands as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memlab.__main__ import COMMANDS as MEMLAB_COMMANDS
from memlab.__main__ import main
from memlab.benchmark.tables.cells import measure
from tests.conftest import REPOSITORY, SMOKE, Command, Outcome
from tests.data.files_of_tables import write_table
from tests.data.folders_of_images import write_images
from tests.data.public_files import write_idx
from tests.data.sequence_files import write_archive
from tests.data.story_files import write_stories, write_tasks
from tests.data.text_files import write_csv
from tests.trained.memories import make, pictures

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines() if line]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
TRAINED = tuple(
    f"memlab {name}" for name in set(MEMLAB_COMMANDS) - {"bench", "bench-tables", "encoders", "plan", "report", "serve"}
)
TRAINING = [command for command in COMMANDS if command.startswith("python train.py")]


def test_first_two_commands_are_the_ones_that_ci_runs() -> None:
    assert COMMANDS[0] == "pip install -e . && python train.py"
    assert COMMANDS[1] == 'pip install -e ".[dev]" && pytest -n auto'
    steps = re.findall(r"^step '(.*)'$", (REPOSITORY / ".ci" / "run").read_text(), re.M)
    assert steps == [*COMMANDS[:2], "ruff check", "ruff format --check", "mypy", "lint-imports"]
    for tool in steps[2:]:
        assert f"`{tool}`" in README.replace("\n", " ")


@pytest.mark.parametrize("text", TRAINING)
def test_training_commands_run(text: str, command: Callable[..., Outcome], tmp_path: Path) -> None:
    write_idx(tmp_path / "data")
    if "outputs/RUN" in text:
        outcome = command(*SMOKE, "hydra.run.dir=outputs/RUN")
    words = [*text.split()[2:], *SMOKE]
    write_images(tmp_path / "pictures", each=250)
    np.savez(tmp_path / "table.npz", X=np.random.default_rng(0).normal(size=(800, 5)), y=np.arange(800) % 3)
    if "data=table" in text:
        pytest.importorskip("polars")
        write_table(tmp_path / "adult.csv", target="income")
    if "data=text" in text:
        pytest.importorskip("polars")
        write_csv(tmp_path / "reviews.csv", 400)
    if "data=sequences" in text:
        write_archive(tmp_path / "JapaneseVowels", train=200, test=20)
    if "task=questions" in text:
        write_stories(tmp_path / "stories.jsonl")
        write_tasks(tmp_path / "data")
    if "data=mnist" in text:
        words += ["support.size=50"]  # the file above has 200 images
    if "topk_ablation" in text:
        words += ["data.objects=2000", "memory.k=4,8", "memory.refresh_every=5"]
    if "sweep.jobs" in text:
        pytest.importorskip("submitit")
        words += ["support.size=100"]
    if "experiment=search" in text:
        pytest.importorskip("optuna")
        words += ["sweep.trials=2"]
    if "trainer.max_epochs" in text:
        words = [word for word in words if word != "trainer=smoke"]
        words = ["trainer.max_epochs=2" if word.startswith("trainer.max_epochs") else word for word in words]
    if "trainer.devices" in text:  # it is begun anew by its own command, which is not that of the tests
        words = [sys.executable, str(REPOSITORY / "train.py"), *words]
        subprocess.run(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)
        return
    outcome = command(*words)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("text", [command for command in COMMANDS if command.startswith("memlab bench ")])
def test_benchmark_commands_run(text: str, tmp_path: Path) -> None:
    small = ["--tasks=evaluation", "--sizes=40", "--rounds=1", "--contenders=memlab tiles", f"--output={tmp_path}"]
    assert main([*text.split()[1:], *small]) == 0


@pytest.mark.parametrize("text", [command for command in COMMANDS if command.startswith("memlab bench-tables")])
def test_benchmark_of_tables_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("memlab.benchmark.tables.run.measured_apart", lambda cell, _: measure(cell))
    (tmp_path / "tables").mkdir()
    write_table(tmp_path / "tables" / "mine.csv", count=100)
    assert main([*text.split()[1:], "--methods=knn", f"--output={tmp_path / 'out'}"]) == 0


def test_the_plan_is_of_the_run_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = (command for command in COMMANDS if command.startswith("memlab plan"))
    assert text.removeprefix("memlab plan ") in [command.removeprefix("python train.py ") for command in TRAINING]
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "data")
    assert main([*text.split()[1:], "support.size=50"]) == 0  # the file above has 200 images


def test_costs_of_encoders_are_told() -> None:
    (text,) = (command for command in COMMANDS if command.startswith("memlab encoders"))
    assert main(text.split()[1:]) == 0


@pytest.mark.parametrize("text", [command for command in COMMANDS if command.startswith("memlab report")])
def test_report_commands_run(text: str, command: Callable[..., Outcome], tmp_path: Path) -> None:
    assert command(*SMOKE).status == 0
    assert main([*text.split()[1:], f"--output={tmp_path / 'report'}"]) == 0


@pytest.fixture
def trained(command: Callable[..., Outcome], tmp_path: Path) -> Path:
    """A run at the place that README names, and pictures beside it."""
    outcome = command(*SMOKE, "hydra.run.dir=outputs/RUN")
    assert "classify with it: memlab predict outputs/RUN PICTURE" in outcome.out.replace(f"{tmp_path}/", "")
    write_photos(tmp_path)
    write_images(tmp_path / "labelled", parts=("3", "5"), each=2)
    return tmp_path


def write_photos(folder: Path) -> None:
    """The pictures that README names."""
    write_images(folder, parts=("photos",), each=2, suffix=".jpg")
    (folder / "photos" / "red").rename(folder / "photos" / "lynx")
    for source, target in (("blue/000.jpg", "cat.jpg"), ("green/000.jpg", "lynx/1.jpg")):
        (folder / "photos" / source).rename(folder / "photos" / target)


@pytest.mark.usefixtures("trained")
def test_commands_on_a_trained_memory_run(tmp_path: Path) -> None:
    texts = [command for command in COMMANDS if command.startswith(TRAINED) and "--story" not in command]
    assert len(texts) == 13
    for text in texts:
        assert main(text.split()[1:]) == 0, text
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 7
    assert "data:image/png" in (tmp_path / "cat.html").read_text()


def test_a_run_is_asked_about_a_story(command: Callable[..., Outcome], memlab: Command, tmp_path: Path) -> None:
    (text,) = (each for each in COMMANDS if "--story" in each)
    write_tasks(tmp_path / "data")
    smoke = ("trainer=smoke", "trainer.enable_progress_bar=false")
    outcome = command("task=questions", *smoke, "hydra.run.dir=outputs/RUN")
    assert "ask it: memlab predict outputs/RUN --story FILE" in outcome.out.replace(f"{tmp_path}/", "")
    (tmp_path / "story.txt").write_text("Mary took the apple.\nMary went to the hall.\n")
    status, out, _ = memlab(*shlex.split(text)[1:])
    assert status == 0
    assert "Mary went to the hall." in out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_serving_commands_run(tmp_path: Path) -> None:
    (serve,) = (command for command in COMMANDS if command.startswith("memlab serve"))
    assert serve == "memlab serve outputs/RUN --port 8000"
    from tests.server.clients import process  # skips where the extra is missing

    make(tmp_path / "outputs" / "RUN", pictures())
    write_photos(tmp_path)
    asked = [command for command in COMMANDS if command.startswith("curl")]
    with process(tmp_path / "outputs" / "RUN") as (_, address):
        words = [shlex.split(text.replace("http://127.0.0.1:8000", address)) for text in asked]
        answers = [json.loads(subprocess.check_output([*each, "--silent"], cwd=tmp_path)) for each in words]
    assert len(answers[0]["answers"][0]["evidence"]) == 5
    assert answers[1]["ids"] == [60]


@pytest.mark.usefixtures("trained")
def test_python_example_on_a_trained_memory_runs(tmp_path: Path) -> None:
    (code,) = (code for code in PYTHON if "memlab.load" in code)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["receipt"].ids == names["ids"]
    assert (tmp_path / "copy" / "memory.json").is_file()


def test_every_command_shown_is_run_by_a_test() -> None:
    known = (
        "python train.py",
        "memlab bench",
        "memlab encoders",
        "memlab plan",
        "memlab report",
        "memlab serve",
        "curl",
        *TRAINED,
    )
    assert all(command.startswith(known) for command in COMMANDS[2:])


def test_every_option_stands_in_the_table_of_groups() -> None:
    groups = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, re.M))
    for folder in (REPOSITORY / "conf").iterdir():
        if folder.is_dir() and folder.name not in {"hydra", "callbacks"}:
            for option in folder.glob("*.yaml"):
                assert f"`{option.stem}`" in groups[folder.name]


def test_every_option_of_questions_is_named() -> None:
    about = README[README.index("### Questions over a story") :]
    for file in (REPOSITORY / "conf" / "tasks" / "questions").glob("*/*.yaml"):
        if file.parent.name in {"data", "memory", "baselines", "experiment"}:
            assert f"`{file.stem}`" in about, file


def test_every_module_stands_in_the_tree() -> None:
    tree = README[README.index("## Extend") :]
    for module in (REPOSITORY / "memlab").glob("[a-z]*"):
        assert module.name in tree or module.name == "py.typed", module.name


def test_parameters_named_in_readme_exist(command: Callable[..., Outcome]) -> None:
    named = sorted(set(re.findall(r"`((?:trainer|callbacks|datamodule)\.[\w.]+=\S+)`", README)))
    assert len(named) >= 5
    words = [word for word in named if not word.startswith(("trainer.precision=16", "trainer.devices", "trainer.num"))]
    assert command(*SMOKE, *words).status == 0


def test_python_example_runs() -> None:
    (code,) = (code for code in PYTHON if "ChunkedMemory" in code)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["log_probs"].shape == (4, 10)  # type: ignore[attr-defined]


def test_estimator_example_runs() -> None:
    (code,) = (code for code in PYTHON if "MemoryClassifier" in code)
    names: dict[str, Any] = {}
    exec(code.replace("random_state=0", "random_state=0, max_iter=1"), names)
    assert names["indices"].shape[0] == 3
    assert names["search"].best_score_ > 0.5


def test_pictures_and_pages_named_are_there() -> None:
    for target in re.findall(r"\]\((\.[^)]+)\)", README):
        assert (REPOSITORY / target).is_file(), target


def test_help_lists_every_group_and_useful_commands(command: Callable[..., Outcome]) -> None:
    printed = command("--help").out
    for folder in (REPOSITORY / "conf").iterdir():
        if folder.is_dir() and folder.name not in {"hydra", "tasks"}:
            options = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            assert f"{folder.name}: {options}" in printed
    assert len(re.findall(r"^python train\.py", printed, re.M)) == 8
