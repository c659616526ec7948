"""Every option of every group, through the whole of train.py; and what a run leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import matplotlib.image
import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf

from memlab.runs.results import PACKAGES
from tests.conftest import REPOSITORY, SMOKE, Outcome
from tests.data.files_of_tables import write_table
from tests.data.folders_of_images import write_images
from tests.data.public_files import write_cifar, write_idx, write_svhn
from tests.data.sequence_files import arrays
from tests.data.text_files import write_csv

CONF = REPOSITORY / "conf"
LISTS = {"baselines"}
"""Groups of which several options can be chosen at a time."""
OPTIONS = sorted(
    f"{file.parent.relative_to(CONF)}=" + (f"[{file.stem}]" if file.parent.name in LISTS else file.stem)
    for file in CONF.glob("**/*.yaml")
    if file.parent != CONF and file.relative_to(CONF).parts[0] not in {"experiment", "callbacks", "hydra", "tasks"}
)
SEQUENCES = ["data=sequences", "data.path=files/mine.npz"]
IMAGES = ["data.root=files", "support.size=50"]
TEXTS = ["data=text", "data.path=files/mine.csv", "data.text=said", "data.target=about"]
NEEDS = {
    **{f"data={name}": IMAGES for name in ("mnist", "fashion_mnist", "cifar10")},
    "data=cifar100": [*IMAGES, "datamodule.validation_fraction=0.4"],
    "data=svhn": ["data.root=files", "support.size=9", "datamodule.batch_size=9", "datamodule.validation_fraction=0.4"],
    "data=folder": IMAGES,
    "data=tensors": ["data.path=files/mine.npz", "encoder=mlp", "support.size=50"],
    "encoder=table": ["data=synthetic_table", "data.objects=2000", "augmentation=none"],
    "data=table": ["data.path=files/mine.csv", "data.target=class"],
    "encoder=torchvision": ["encoder.name=mobilenet_v3_small"],
    **{f"encoder={name}": SEQUENCES for name in ("elman", "fcn", "gru", "jordan", "lstm", "peephole", "transformer")},
    **{f"baselines=[knn_{name}]": [*SEQUENCES, "encoder=elman"] for name in ("dtw", "steps")},
    "data=sequences": SEQUENCES,
    **{f"encoder={name}": TEXTS for name in ("bag", "text_conv", "tfidf")},
    "data=text": TEXTS,
    "data=synthetic_table": ["data.objects=2000", "encoder=mlp"],
    **{f"memory/index={name}": ["memory=topk"] for name in ("exact", "ivf")},
    **{f"evaluation/index={name}": ["evaluation=topk"] for name in ("exact", "ivf", "hnsw")},
}
PACKAGE = {
    "logger=tensorboard": "tensorboard",
    "logger=wandb": "wandb",
    **dict.fromkeys(("data=table", "data=text", "encoder=bag", "encoder=text_conv", "encoder=tfidf"), "polars"),
    **{f"{group}/index={name}": "faiss" for group in ("memory", "evaluation") for name in ("ivf", "hnsw")},
}


def write_files(option: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an option reads, small."""
    if option in {"data=mnist", "data=fashion_mnist"}:
        write_idx(root, folder={"data=mnist": "MNIST", "data=fashion_mnist": "FashionMNIST"}[option])
    if option in {"data=cifar10", "data=cifar100"}:
        dataset = {"data=cifar10": torchvision.datasets.CIFAR10, "data=cifar100": torchvision.datasets.CIFAR100}[option]
        write_cifar(root, monkeypatch, dataset=dataset)
    if option == "data=svhn":
        write_svhn(root, monkeypatch)
    if option == "data=folder":
        write_images(root, each=60)
    if option == "data=table":
        root.mkdir()
        write_table(root / "mine.csv")
    if "data=sequences" in NEEDS.get(option, []):
        root.mkdir()
        np.savez(root / "mine.npz", **arrays(100))
    if "data=text" in NEEDS.get(option, []):
        root.mkdir()
        write_csv(root / "mine.csv", 100)
    if option == "data=tensors":
        root.mkdir()
        np.savez(root / "mine.npz", X=np.random.default_rng(0).normal(size=(200, 5)), y=np.arange(200) % 3)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_runs(
    option: str, command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if option == "trainer=gpu":
        pytest.skip("needs a GPU")
    if option == "memory/index=hnsw":
        pytest.skip("refused in training, see test_bad_input.py")
    if option in PACKAGE:
        pytest.importorskip(PACKAGE[option])
    write_files(option, tmp_path / "files", monkeypatch)
    words = [word for word in SMOKE if not (option.startswith("trainer=") and word == "trainer=smoke")]
    if option in {"trainer=auto", "trainer=cpu", "trainer=sequences", "trainer=table", "trainer=texts"}:
        words.append("trainer.max_epochs=1")
    outcome = command(*words, option, *NEEDS.get(option, []))
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.run_folders
    results = json.loads((folder / "results.json").read_text())
    group, choice = option.split("=")
    if group in LISTS:
        assert list(results[group]) == [choice.strip("[]")]
    else:
        assert results["choices"][group] == choice


SWEPT = {"mnist": 60_000, "cifar10": 50_000}
"""Data sets with a sweep over M: objects that are not test objects."""
OF_TABLES = ("table", "modern_nca", "tabr")
"""Experiments with a table of the user's own."""
EXPERIMENTS = {
    **{
        f"table1_{data}_{encoder}": IMAGES
        for data in ("mnist", "cifar10", "cifar100")
        for encoder in ("linear", "conv")
    },
    "figure4": IMAGES,
    "gradient_growth": [],
    **{f"{data}_{encoder}": IMAGES for data in ("mnist", "cifar10") for encoder in ("lenet", "resnet")},
    **{f"{data}_support_sweep": IMAGES for data in SWEPT},
    "search": ["sweep.trials=1"],
    "search_topk": ["sweep.trials=1"],
    "mnist_topk": ["data.root=files"],
    "mnist_subsample": ["data.root=files"],
    **dict.fromkeys(OF_TABLES, NEEDS["data=table"]),
    "table_topk": ["data.objects=2000"],
    "table_subsample": ["data.objects=2000"],
    "thesis": [],
    "topk_ablation": ["data.objects=2000"],
}


def test_all_experiments_are_tried() -> None:
    assert EXPERIMENTS.keys() == {file.stem for file in (CONF / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_runs(
    experiment: str, command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if experiment in OF_TABLES:
        pytest.importorskip("polars")
    if experiment.startswith("search"):
        pytest.importorskip("optuna")
    sets = {"cifar100": "cifar100", "figure4": "cifar100", "cifar10": "cifar10", "mnist": "mnist"}
    usual = "digits" if experiment in {"gradient_growth", "search", "search_topk", "thesis"} else "synthetic_table"
    data = "table" if experiment in OF_TABLES else next((sets[word] for word in sets if word in experiment), usual)
    write_files(f"data={data}", tmp_path / "files", monkeypatch)
    needed = NEEDS[f"data={data}"] if data == "cifar100" else EXPERIMENTS[experiment]
    flags = ["-m"] if experiment.startswith("search") else []
    outcome = command(*flags, *SMOKE, f"experiment={experiment}", "datamodule.batch_size=20", *needed)
    assert outcome.status == 0, outcome.err


def test_the_ablation_is_a_sweep_over_k_and_refreshes(command: Callable[..., Outcome]) -> None:
    small = ("data.objects=2000", "datamodule.batch_size=20", "evaluation=all")
    outcome = command("-m", *SMOKE, "experiment=topk_ablation", "memory.refresh_every=5", *small)
    assert outcome.status == 0, outcome.err
    (sweep,) = outcome.run_folders
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert sorted(int(row["memory.k"]) for row in rows) == [4, 8, 16, 32, 128]
    assert all(0 <= float(row["validation/recall"]) <= 1 and float(row["fit_seconds"]) > 0 for row in rows)


@pytest.mark.parametrize("data", SWEPT)
def test_the_sweep_over_m_goes_up_to_all_that_a_batch_leaves(data: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", [f"experiment={data}_support_sweep"], return_hydra_config=True)
    sizes = [int(size) for size in cfg.hydra.sweeper.params["support.size"].split(",")]
    assert cfg.datamodule.validation_fraction == "enough"
    train = SWEPT[data] - SWEPT[data] // 10
    assert sizes[0] == 100
    assert sizes == sorted(sizes)
    assert sizes[-1] == train - cfg.datamodule.batch_size


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
@pytest.mark.parametrize("memory", ["full", "chunked", "topk"])
def test_precision(precision: str, memory: str, command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, f"trainer.precision={precision}", f"memory={memory}")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("memory", ["full", "chunked", "topk"])
@pytest.mark.parametrize("evaluation", ["all", "topk"])
def test_any_reading_whatever_the_training(memory: str, evaluation: str, command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, f"memory={memory}", f"evaluation={evaluation}")
    assert outcome.status == 0, outcome.err
    results = json.loads((outcome.run_folders[0] / "results.json").read_text())
    assert results["choices"]["evaluation"] == evaluation


def test_topk_reads_the_whole_training_set_and_evaluates_as_it_trains(command: Callable[..., Outcome]) -> None:
    words = ("trainer.enable_progress_bar=false", "evidence.objects=2", "trainer.max_epochs=2")
    outcome = command(*words, "memory=topk", "memory.k=8", "augmentation=none", "memory.refresh_every=5")
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.run_folders
    config: Any = OmegaConf.load(folder / "config.yaml")
    assert config["evaluation"]["k"] == 8
    assert config["support"]["_target_"] == "memlab.data.support.WholeSupport"
    results = json.loads((folder / "results.json").read_text())
    assert results["sizes"]["support"] == results["sizes"]["train"] == 1293
    assert results["sizes"]["k"] == 8
    assert 8 < results["train/unique_cells"] <= 64 * 8
    assert results["train/key_age_max"] == 4
    assert 0 < results["train/key_age_mean"] < 4
    assert 0 < results["train/refresh_share"] < 1
    assert results["validation/recall"] > 0.8
    assert "K = 8" in outcome.out
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    for name in ("train/unique_cells", "train/key_age_max", "train/refresh_share", "validation/recall"):
        assert sum(row[name] != "" for row in rows) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("memory.hops=1",),
        ("memory=chunked", "memory.hops=2", "memory.values=tabr", "memory.activation_budget=0.01"),
        ("memory=topk", "memory.hops=2", "memory.values=label", "memory.hop_search=keep"),
        ("memory=chunked", "memory.hops=2", "memory.hop_keys=apart", "memory.answer=layer", "evaluation=topk"),
        ("memory=topk", "memory.hops=3", "trainer.precision=bf16-mixed"),
        ("memory.hops=1", "trainer.precision=64-true", "memory.hop_keys=apart"),
    ],
    ids=str,
)
def test_hops(words: tuple[str, ...], command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, *words)
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.run_folders
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights["memory.hops.class_values"].abs().max() > 0


def test_activation_budget(command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, "memory=chunked", "memory.chunk_size=100", "memory.activation_budget=0.01")
    assert outcome.status == 0, outcome.err


def test_chunk_size_that_was_measured_stands_in_the_log_and_in_the_results(command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, "memory=chunked", "memory.chunk_size=auto")
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.run_folders
    chunk = json.loads((folder / "results.json").read_text())["sizes"]["chunk"]
    assert f"chunk_size=auto: {chunk:,}, measured" in (folder / "train.log").read_text()


def test_clipping_accumulation_and_host_memory(command: Callable[..., Outcome]) -> None:
    words = ["trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2", "datamodule.location=host"]
    assert command(*SMOKE, *words).status == 0


class TestRunFolder:
    def test_holds_what_readme_says(self, command: Callable[..., Outcome]) -> None:
        outcome = command("trainer.max_epochs=3", "trainer.enable_progress_bar=false", "evidence.objects=4")
        (folder,) = outcome.run_folders
        found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        memory = {name for name in found if name.startswith("memory/")}
        assert "memory/memory.json" in memory
        kept = {name.removesuffix(".sha256") for name in found if name.startswith("checkpoints/")}
        named = {f"checkpoints/{before}{name}.ckpt" for name in ("best", "last") for before in ("", "before_")}
        assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= kept <= named
        checkpoints = {f"{name}{end}" for name in kept for end in ("", ".sha256")}
        assert checkpoints <= found
        assert found - memory - checkpoints == {
            "config.yaml",
            "metrics.csv",
            "overrides.yaml",
            "confusion.csv",
            "predictions.csv",
            "results.json",
            "train.log",
            "figures/learning_curve.png",
            "figures/evidence.png",
            "figures/evidence.html",
            "figures/confusion.png",
        }
        self.check_results(folder, outcome.out)
        self.check_metrics(folder)
        self.check_predictions(folder)
        for picture in (folder / "figures").glob("*.png"):
            assert matplotlib.image.imread(picture).std() > 0.05
        config: Any = OmegaConf.load(folder / "config.yaml")
        assert config["trainer"]["max_epochs"] == 3

    def check_results(self, folder: Path, printed: str) -> None:
        results = json.loads((folder / "results.json").read_text())
        for name in ("test/accuracy", "test/nll", "test/ece"):
            assert isinstance(results[name], float)
        assert results["baselines"].keys() == {"knn_pixels"}
        for accuracy in (results["test/accuracy"], results["baselines"]["knn_pixels"]["accuracy"]):
            assert f"{accuracy:.2%}" in printed
        assert results["seed"] == 0
        assert results["data"] == "digits"
        assert results["sizes"] == {"train": 1293, "validation": 144, "test": 360, "batch": 64, "support": 512}
        assert results["versions"].keys() == {"python", "memlab", *PACKAGES}
        assert results["wall_time_seconds"] > 0
        assert results["epochs"] == 3
        assert 1 <= results["best_epoch"] <= 3

    def check_predictions(self, folder: Path) -> None:
        results = json.loads((folder / "results.json").read_text())
        lines = list(csv.DictReader((folder / "predictions.csv").open(newline="")))
        assert len(lines) == results["sizes"]["test"]
        assert all(line["source"] == f"row {line['id']}" for line in lines)
        mass = np.array([[line[f"p({name})"] for name in range(10)] for line in lines], np.float32)
        assert [str(answer) for answer in mass.argmax(axis=1)] == [line["answer"] for line in lines]
        truth = np.array([int(line["truth"]) for line in lines])
        assert results["test/accuracy"] == pytest.approx(np.mean(mass.argmax(axis=1) == truth))
        brier = np.mean(np.square(mass - np.eye(10)[truth]).sum(axis=1))
        assert results["test/brier"] == pytest.approx(brier, rel=1e-5)

    def check_metrics(self, folder: Path) -> None:
        results = json.loads((folder / "results.json").read_text())
        rows = list(csv.DictReader((folder / "metrics.csv").open()))
        for name in ("train/accuracy", "validation/accuracy", "train/absent_class_rate"):
            assert sum(row[name] != "" for row in rows) == 3
        by_validation = min(
            (row for row in rows if row["validation/nll"]), key=lambda row: float(row["validation/nll"])
        )
        assert int(by_validation["epoch"]) + 1 == results["best_epoch"]
        selected = {name: float(value) for name, value in by_validation.items() if name.startswith("validation/")}
        assert {name: value for name, value in results.items() if name.startswith("validation/")} == selected
        assert {name.split("/")[1] for name in results if name.startswith("test/")} == {
            name.split("/")[1] for name in selected
        }
        assert float(by_validation["test/accuracy"]) == pytest.approx(results["test/accuracy"])
