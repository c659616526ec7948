"""A run of a network over stories: what it is made of, what it tells and what it leaves."""

from __future__ import annotations

import csv
import inspect
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor

from memlab.baselines import StoryBaseline
from memlab.checks import check_choice, check_switch, check_whole_number, parameters_of
from memlab.data.datasets import StoryData
from memlab.data.stories import Question, Story
from memlab.files import written_whole
from memlab.questions import StoryNetwork
from memlab.runs.attention import draw_attention
from memlab.runs.attention_page import write_attention_page
from memlab.runs.figures import draw_learning_curve
from memlab.runs.parts import Parts, Task, callbacks_of, facts_of, made, recipe_in, start_of, trainer_of
from memlab.runs.published_answers import FAILED, published_of
from memlab.runs.tried_questions import choose_questions, last_questions, tried
from memlab.trained.recipes import NETWORKS
from memlab.trained.story_network import FOLDER, keep_network
from memlab.training.loss_weights import loss_weights
from memlab.training.story_datamodule import StoryDataModule
from memlab.training.story_module import MEASURED, Measured, StoryAnswerer

log = logging.getLogger("memlab")

FILE = "answers.csv"
Run = Parts[StoryDataModule, StoryAnswerer]


def assemble(cfg: DictConfig) -> Run:
    """Make all parts from their configuration."""
    pl.seed_everything(check_whole_number("seed", cfg.seed, minimum=0), workers=True)
    make = instantiate(cfg.datamodule, _partial_=True)
    data = made(cfg, "data", StoryData)
    if not data.validation:
        raise ValueError(
            f"data.validation_fraction={cfg.data.validation_fraction}: holds nothing out; must, the best checkpoint is"
            " chosen by it"
        )
    with parameters_of("datamodule"):  # not by instantiate, which takes dataclasses for configurations and copies them
        datamodule = make(data=data)
    baselines = dict(instantiate(cfg.get("baselines", {})))
    callbacks = callbacks_of(cfg)
    trainer = trainer_of(cfg, callbacks, datamodule.batches)
    if trainer.world_size > 1:
        raise ValueError(f"trainer.devices={trainer.num_devices}: must be 1, stories are not shared out over processes")
    model = StoryAnswerer(
        network=_network(cfg, datamodule),
        encoder=datamodule.encoder,
        reduction=cfg.reduction,
        weights=_weights(cfg, datamodule),
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler),
        validation_tasks=datamodule.validation.tasks,
        test_tasks=datamodule.test.tasks,
    )
    check_choice("monitor", cfg.monitor, [f"validation/{name}" for name in MEASURED])
    for name in ("questions", "page_questions"):
        check_whole_number(f"evidence.{name}", cfg.evidence[name])
    check_switch("figures", cfg.figures)
    start = start_of(cfg, model, trainer)
    facts = facts_of(cfg, model, trainer, data=datamodule.data.name) | {"sizes": datamodule.sizes}
    return Run(datamodule, model, trainer, callbacks, start, baselines, facts)


def _weights(cfg: DictConfig, datamodule: StoryDataModule) -> Tensor | None:
    """What each training question counts in the loss, by its task."""
    names, numbers = np.unique(datamodule.train.tasks, return_inverse=True)
    of_tasks = loss_weights(cfg.task_weights, torch.from_numpy(numbers), names.tolist(), of="task")
    return None if of_tasks is None else of_tasks[numbers]


def _network(cfg: DictConfig, datamodule: StoryDataModule) -> StoryNetwork:
    network = made(cfg, "memory", StoryNetwork, **_words_for(cfg, datamodule))
    if network.reads_all_cells and datamodule.encoder.most_cells is not None:
        raise ValueError(
            f"datamodule.most_cells={datamodule.encoder.most_cells}: must be null, as this network reads all that was"
            " told"
        )
    return network


def _words_for(cfg: DictConfig, datamodule: StoryDataModule) -> dict[str, Any]:
    """What the network takes of these by name: sizes of what the data has."""
    encoder = datamodule.encoder
    known: dict[str, Any] = {
        "words": len(encoder.vocabulary),
        "answers": len(encoder.answers),
        "answer_words": encoder.answer_words,
        "longest": datamodule.train.longest,
        "most_cells": datamodule.train.most_told,
    }
    module, _, name = str(cfg.memory._target_).rpartition(".")
    taken: set[str] = set()
    with suppress(Exception):  # `made` tells of a target that there is not
        taken = set(inspect.signature(getattr(import_module(module), name)).parameters)
    return {word: value for word, value in known.items() if word in taken}


def _begin(run: Run, cfg: DictConfig) -> str:
    sizes = run.datamodule.sizes
    return (
        f"{run.datamodule.data.name}: {sizes['train']:,} questions over {sizes['stories']:,} stories to train on;"
        f" {sizes['validation']:,} held out for validation by data.split_seed={cfg.data.split_seed};"
        f" {sizes['test']:,} to test on; {sizes['words']:,} words, {sizes['answers']:,} answers"
    )


def _measured(run: Run) -> dict[str, Any]:
    tested, tasks = run.model.tested, run.datamodule.test.tasks
    errors, recall = tested.error_by_task(tasks), tested.recall_by_task(tasks)
    return {
        "tasks": {
            task: {
                "questions": len(rows),
                "error": errors[task],
                "failed": errors[task] > FAILED,
                **({"supporting_recall": recall[task]} if recall.get(task) else {}),
            }
            for task, rows in tested.by_task(tasks).items()
        },
        "failed": sum(error > FAILED for error in errors.values()),
        "baselines": {name: _measure(baseline, run) for name, baseline in run.baselines.items()},
    }


def _measure(baseline: StoryBaseline, run: Run) -> dict[str, Any]:
    """Test error of a baseline, by task and the mean of these, what it is, and how long it took."""
    data = run.datamodule.data
    start = time.perf_counter()
    answers = baseline.predict(data.train, data.test)
    seconds = time.perf_counter() - start
    wrong: dict[str, list[bool]] = {}
    for (story, question), answer in zip(_asked(data.test), answers, strict=True):
        wrong.setdefault(story.task, []).append(answer != question.answer)
    errors = {task: sum(each) / len(each) for task, each in wrong.items()}
    return {"title": baseline.title, "error": mean(errors.values()), "tasks": errors, "seconds": seconds}


def _leave(run: Run, cfg: DictConfig, folder: Path, results: dict[str, Any]) -> str:
    write_answers(folder / FILE, run.datamodule.data.test, run.model.tested, run.model.encoder.answers)
    if cfg.figures:
        _illustrate(run, cfg, folder, results)
    recipe = recipe_in(cfg.memory, **_words_for(cfg, run.datamodule))
    if recipe["class"] not in NETWORKS:
        return f"no trained network is kept of {recipe['class']}, which is none of memlab"
    about = {"data": results["data"], "seed": cfg.seed, "test/error": results["test/error"]}
    keep_network(folder / FOLDER, run.model.network, run.model.encoder, recipe=recipe, about=about)
    return f'ask it: memlab predict {folder} --story FILE --question "Where is Mary?"'


def _illustrate(run: Run, cfg: DictConfig, folder: Path, results: dict[str, Any]) -> None:
    """Draw the learning curve and what some test questions have read, and write the page of more of them."""
    stories, tested, tasks = run.datamodule.data.test, run.model.tested, run.datamodule.test.tasks
    drawn = last_questions(stories, questions=cfg.evidence.questions)
    told = choose_questions(tested, tasks, questions=cfg.evidence.page_questions)
    network = run.model.network.eval()  # Lightning has put it back into training, as it was before the test
    few, more = (tried(network, run.model.encoder, stories, numbers) for numbers in (drawn, told))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    title = f"{results['data']}, {results['choices']['memory']} memory"
    draw_learning_curve(
        folder / "metrics.csv",
        figures / "learning_curve.png",
        title=title,
        best_epoch=results["best_epoch"],
        note="validation: after the epoch, share of all questions that are answered right",
    )
    if few[0].answer.weights:
        draw_attention(few, figures / "attention.png", title=title)
    log.info(write_attention_page(more, figures / "attention.html", title=title, asked=len(tasks)))


def write_answers(file: Path, stories: tuple[Story, ...], tested: Measured, answers: tuple[str, ...]) -> None:
    """Write what was answered to each test question, a line for each.

    Args:
        file: CSV.
        stories: that were asked about.
        tested: what was answered to their questions, which are numbered story after story.
        answers: by number.
    """
    asked = list(_asked(stories))
    with written_whole(file) as target:
        writer = csv.writer(target)
        writer.writerow(["id", "source", "task", "question", "truth", "answer", "probability"])
        for number, answer, probability in zip(
            tested.ids.tolist(), tested.answers.tolist(), tested.probability.tolist(), strict=True
        ):
            story, question = asked[number]
            told = [story.source, story.task, question.text, question.answer, answers[answer]]
            writer.writerow([number, *told, f"{probability:.9g}"])


def _asked(stories: tuple[Story, ...]) -> Iterator[tuple[Story, Question]]:
    return ((story, question) for story in stories for question in story.questions)


def table(results: dict[str, Any]) -> Table:
    """The error of each task, how often the heaviest sentence is a right one, and errors of others beside it."""
    baselines, memory = results["baselines"], results["choices"]["memory"]
    hops = max((len(each.get("supporting_recall", [])) for each in results["tasks"].values()), default=0)
    published = published_of(memory, results["data"])
    lines = Table(
        title=f"{results['data']}: {results['sizes']['test']:,} test questions, {memory} memory,"
        f" seed {results['seed']}",
        caption=f"best of {results['epochs']} epochs by validation: epoch {results['best_epoch']};"
        f" {results['wall_time_seconds']:.0f} s; failed: error above {FAILED:.0%}"
        + (f"; published: {published.summary}" if published else ""),
    )
    lines.add_column("task")
    lines.add_column("error, %", justify="right")
    lines.add_column("")
    if hops:
        lines.add_column("heaviest sentence is a\nsupporting fact, % by hop", justify="right")
    if published and published.by_task:
        lines.add_column("published,\nerror, %", justify="right")
    for name in baselines:
        lines.add_column(f"{name.replace('_', ' ')},\nerror, %", justify="right")
    for task, each in results["tasks"].items():
        shown = [task or "all", f"{100 * each['error']:.1f}", "failed" if each["failed"] else ""]
        if hops:
            shown.append(" ".join(f"{100 * share:5.1f}" for share in each.get("supporting_recall", [])) or "-")
        if published and published.by_task:
            shown.append(f"{published.by_task[task]:.1f}" if task in published.by_task else "-")
        lines.add_row(*shown, *(f"{100 * baseline['tasks'][task]:.1f}" for baseline in baselines.values()))
    lines.add_section()
    shown = ["mean", f"{100 * results['test/error']:.1f}", f"{results['failed']} failed", *([""] if hops else [])]
    if published and published.by_task:
        shown.append(f"{mean(published.by_task.values()):.1f}")
    lines.add_row(*shown, *(f"{100 * baseline['error']:.1f}" for baseline in baselines.values()))
    return lines


TASK = Task(assemble=assemble, begin=_begin, measured=_measured, leave=_leave, table=table)
