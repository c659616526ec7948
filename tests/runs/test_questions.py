"""``task=questions`` through the whole of train.py: options, what a run leaves, going on, and mistakes in one line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.data.datasets.babi import babi
from memlab.training.checkpoint_files import read_checkpoint
from tests.conftest import REPOSITORY, Outcome
from tests.data.story_files import write_stories, write_tasks

QUESTIONS = REPOSITORY / "conf" / "tasks" / "questions"
QUIET = ("task=questions", "trainer.enable_progress_bar=false")
SMOKE = (*QUIET, "trainer=smoke", "baselines=[]")
OPTIONS = sorted(
    f"{file.parent.name}=" + (f"[{file.stem}]" if file.parent.name == "baselines" else file.stem)
    for file in QUESTIONS.glob("*/*.yaml")
)


@pytest.fixture
def asked(command: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """The command in a folder that has stories."""
    write_tasks(tmp_path / "data")
    write_stories(tmp_path / "stories.jsonl")
    return command


def results_of(outcome: Outcome) -> Mapping[str, Any]:
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.run_folders
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_runs(option: str, asked: Callable[..., Outcome]) -> None:
    needed = ["data.path=stories.jsonl"] if option == "data=stories" else []
    results = results_of(asked(*SMOKE, option, *needed))
    group, choice = option.split("=")
    if group == "baselines":
        assert list(results["baselines"]) == [choice.strip("[]")]
    else:
        assert results["choices"][group] == choice


@pytest.mark.parametrize("memory", ["memn2n", "memnn", "items", "lstm"])
def test_answers_are_those_that_the_results_count(memory: str, asked: Callable[..., Outcome], tmp_path: Path) -> None:
    words = (f"memory={memory}", "data.tasks=[2,7]", "baselines=[answer_prior,ngrams]", "evidence.page_questions=1000")
    outcome = asked(*SMOKE, *words)
    results = results_of(outcome)
    data = babi(
        path=str(tmp_path / "data"),
        tasks=[2, 7],
        size="1k",
        missing="refuse",
        download=False,
        validation_fraction=0.1,
        split_seed=0,
    )
    told = [(story.task, each.text, each.answer) for story in data.test for each in story.questions]
    (folder,) = outcome.run_folders
    with (folder / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["question"], row["truth"]) for row in rows] == told
    assert [int(row["id"]) for row in rows] == list(range(len(told)))
    errors = {}
    for task in ("qa2", "qa7"):
        own = [row for row in rows if row["task"] == task]
        errors[task] = sum(row["answer"] != row["truth"] for row in own) / len(own)
        assert results["tasks"][task]["error"] == pytest.approx(errors[task])
        assert results["tasks"][task]["failed"] == (errors[task] > 0.05)
        assert f"{100 * errors[task]:.1f}" in outcome.out
    assert results["test/error"] == pytest.approx(sum(errors.values()) / 2)
    assert results["failed"] == sum(error > 0.05 for error in errors.values())
    assert results["sizes"]["test"] == len(told)
    assert results["sizes"]["train"] + results["sizes"]["validation"] == 2 * 20 * 3
    for baseline in results["baselines"].values():
        assert baseline["error"] == pytest.approx(sum(baseline["tasks"].values()) / 2)
    hops = {"memn2n": 3, "memnn": 8}.get(memory, 0)
    assert (folder / "figures" / "attention.png").is_file() == bool(hops)
    assert (folder / "figures" / "learning_curve.png").is_file()
    page = (folder / "figures" / "attention.html").read_text()
    assert page.count("<article") == len(told)
    shown = [f"{escape(row['answer'])}</bdi> ({float(row['probability']):.1%})" for row in rows]
    assert sorted(re.findall(r">answer</th><td><bdi class=.source.>([^<]+</bdi> \([^)]+\))", page)) == sorted(shown)
    for task in results["tasks"].values():
        assert len(task.get("supporting_recall", [])) == hops


def test_a_memory_network_learns_where_everybody_is(asked: Callable[..., Outcome], tmp_path: Path) -> None:
    write_stories(tmp_path / "many.jsonl", stories=400)
    words = [
        "memory=memnn",
        "data=stories",
        "data.path=many.jsonl",
        "trainer.max_epochs=15",
        "datamodule.batch_size=10",
        "baselines=[bag_of_words]",
    ]
    results = results_of(asked(*QUIET, *words))
    assert results["test/error"] < 0.05 < results["baselines"]["bag_of_words"]["error"]
    assert results["tasks"][""]["supporting_recall"][0] > 0.95


@pytest.mark.parametrize("memory", ["memn2n", "memnn", "items", "lstm"])
def test_a_run_that_goes_on_ends_as_one_left_alone(
    memory: str, asked: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*QUIET, f"memory={memory}", "data.tasks=[1,2]", "baselines=[]", "trainer.max_epochs=3"]
    alone = asked(*words, "hydra.run.dir=outputs/alone")
    assert alone.status == 0, alone.err

    from memlab.signals import Interrupted
    from memlab.training.story_module import StoryAnswerer

    steps, as_it_is = [0], StoryAnswerer.training_step

    def interrupted(self: StoryAnswerer, *arguments: Any) -> Any:
        steps[0] += 1
        if steps[0] == 5:
            raise Interrupted(15)
        return as_it_is(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(StoryAnswerer, "training_step", interrupted)
        assert asked(*words, "hydra.run.dir=outputs/broken").status == 75
    outcome = asked("resume=outputs/broken")
    assert outcome.status == 0, outcome.err
    ends = [read_checkpoint(alone.folder / "outputs" / name / "checkpoints/last.ckpt") for name in ("alone", "broken")]
    assert ends[0]["global_step"] == ends[1]["global_step"]
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][name]), name
    lines = [(alone.folder / "outputs" / name / "metrics.csv").read_text() for name in ("alone", "broken")]
    assert lines[0] == lines[1]


def test_tasks_of_few_questions_count_as_much_where_they_are_to(
    asked: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from memlab.training.story_module import StoryAnswerer

    (file,) = (tmp_path / "data").rglob("en/qa2_made_train.txt")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[: 6 * 5]))  # five of twenty stories
    found, as_it_is = [], StoryAnswerer.on_train_start

    def noted(self: StoryAnswerer) -> None:
        assert self.weights is not None
        found.append(self.weights.tolist())
        as_it_is(self)

    monkeypatch.setattr(StoryAnswerer, "on_train_start", noted)
    results_of(asked(*SMOKE, "data.tasks=[1,2]", "task_weights=balanced"))
    (weights,) = found
    by_task = weights[: 18 * 3], weights[18 * 3 :]
    assert [sum(each) for each in by_task] == pytest.approx([len(weights) / 2] * 2)
    assert all(len(set(each)) == 1 for each in by_task)


def test_starts_side_by_side_are_a_sweep(asked: Callable[..., Outcome]) -> None:
    outcome = asked("-m", *SMOKE, "data.tasks=[1]", "seed=0,1")
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.run_folders
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["seed"] for row in rows) == ["0", "1"]
    assert all(0 <= float(row["test/error"]) <= 1 for row in rows)
    assert float(rows[0]["validation/error"]) <= float(rows[1]["validation/error"])


MISTAKES = {
    "task=question": "task=question: must be one of classification, questions",
    "task=questions data=digits": "data=digits: is of task=classification; add that, or take one of babi, stories",
    "task=questions memory=full": "memory=full: is of task=classification",
    "experiment=babi_memnn": "experiment=babi_memnn: is of task=questions; add that",
    "task=questions memory=foo": "memory=foo: must be one of items, lstm, memn2n, memnn\n",
    "task=questions encoder=conv": "encoder=conv: there is no such parameter or group with the options chosen",
    "memory=memn2n": "memory=memn2n: is of task=questions; add that, or take one of chunked, full, linear",
    "task=questions data=stories": "data.path: must be given",
    "task=questions data=stories data.path=none.txt": "data: none.txt: cannot be read (No such file or directory)",
    "task=questions data=stories data.path=stories.jsonl data.test_fraction=0.001": (
        "data.test_fraction=0.001: holds out none of 40 stories"
    ),
    "task=questions data.path=nowhere data.download=false": "data.path=nowhere: has no tasks_1-20_v1-2",
    "task=questions data.tasks=[21]": "data.tasks=[21]: must be numbers from 1 to 20, each once",
    "task=questions data.size=2k": "data.size=2k: must be one of 1k, 10k",
    "task=questions data.validation_fraction=0": "data.validation_fraction=0: holds nothing out; must",
    "task=questions memory.hops=0": "memory.hops=0: must be a whole number of at least 1",
    "task=questions memory.encoding=words": "memory.encoding=words: must be one of bag, position, centred",
    "task=questions memory.linear_start=1": "memory.linear_start=1: must be",
    "task=questions memory=items datamodule.most_cells=5": "datamodule.most_cells=5: must be null",
    "task=questions datamodule.batch_size=0": "datamodule.batch_size=0: must be a whole number of at least 1",
    "task=questions evidence.page_questions=0": "evidence.page_questions=0: must be a whole number of at least 1",
    "task=questions task_weights=even": "task_weights=even: must be balanced, null, or numbers above 0 by name",
    "task=questions task_weights={qa33:2}": "task_weights.qa33: there is no such task; must be one of qa1, qa10",
    "task=questions reduction=max": "reduction=max: must be one of mean, sum",
    "task=questions monitor=validation/ece": "monitor=validation/ece: must be one of validation/error",
    "task=questions trainer.devices=2": "trainer.devices=2: must be 1",
    "task=questions optimizer.lr=big": "optimizer.lr=big: must be a number",
    "task=questions memory._target_=torch.nn.Linear": "memory",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_told_in_one_line(words: str, asked: Callable[..., Outcome]) -> None:
    outcome = asked(*words.split())
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: {MISTAKES[words]}"), outcome.err
    assert outcome.err.count("\n") == 1
    assert not outcome.run_folders


def test_help_shows_what_applies(asked: Callable[..., Outcome]) -> None:
    printed = asked("task=questions", "--help").out
    assert "memory: items, lstm, memn2n, memnn\n" in printed
    assert "most_cells: 50" in printed
    for group in ("encoder", "similarity", "support", "augmentation"):
        assert f"\n{group}: " not in printed
