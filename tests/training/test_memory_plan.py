"""What a training is estimated to take, against counts of the step itself and against arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from memlab.data.datasets import LabelledData
from memlab.data.episodes import Episode
from memlab.data.objects import ObjectStore
from memlab.data.parts import parts as data_parts
from memlab.data.support import Support, SupportSampler, UniformSupport, WholeSupport
from memlab.encoders import MLP
from memlab.index import ExactIndex
from memlab.memory import (
    ChunkedMemory,
    Dot,
    Euclidean,
    FullMemory,
    Hops,
    LinearMemory,
    Memory,
    ReadAll,
    ReadTopK,
    StoredKeys,
    TopKMemory,
)
from memlab.memory.out_of_memory import until_it_fits
from memlab.training import memory_plan
from memlab.training.allocations import Mark, recorded
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.memory_plan import HEAP, Planner
from memlab.training.module import MemoryClassifier
from tests.conftest import quiet_trainer

N, F, C, B = 1500, 400, 7, 32


def planner(
    *,
    encoder: nn.Module | None = None,
    memory: Memory | None = None,
    support: SupportSampler | None = None,
    **words: Any,
) -> Planner:
    return Planner(*parts(encoder=encoder, memory=memory, support=support, **words), quiet_trainer())


def parts(
    *,
    encoder: nn.Module | None = None,
    memory: Memory | None = None,
    support: SupportSampler | None = None,
    reading: ReadAll | None = None,
    optimizer: Callable[..., Any] = torch.optim.AdamW,
    augmentation: Callable[[Any], Any] | None = None,
) -> tuple[MemoryClassifier, EpisodeDataModule]:
    generator = torch.Generator().manual_seed(0)
    store = ObjectStore(
        inputs=torch.randn(N + 100, F, generator=generator),
        labels=torch.arange(N + 100) % C,
        class_names=tuple("abcdefg"),
    )
    module = EpisodeDataModule(
        data=LabelledData("rows", store, torch.arange(N), torch.arange(N, N + 100)),
        support=support or UniformSupport(size=600),
        batch_size=B,
        eval_batch_size=200,
        validation_fraction=0.1,
        split_seed=0,
        seed=0,
        num_workers=0,
        location="device",
        augmentation=augmentation,
    )
    model = MemoryClassifier(
        encoder=encoder or nn.Linear(F, 8),
        embedding_size=8,
        memory=memory or FullMemory(similarity=Dot()),
        reading=reading or ReadAll(),
        class_names=store.class_names,
        optimizer=partial(optimizer, lr=0.1),
        scheduler={"factor": float},
        evidence_k=3,
    )
    return model, module


def mlp(**words: Any) -> nn.Module:
    return MLP(**{"input_shape": (F,), "embedding_size": 8, "hidden_sizes": [300, 200], "normalisation": "layer",
                  "dropout": 0.0, **words})  # fmt: skip


def counted(model: MemoryClassifier, module: EpisodeDataModule, *, objects: int, cells: int | None = None) -> float:
    """Most bytes of a whole step as it is in training, gradients of the one before included."""
    rows = module.train_rows
    support, query = Support(module.store, rows[: cells or objects]), Support(module.store, rows[-B:])
    parameters = [*model.parameters()]

    def step(mark: Mark) -> None:
        words: dict[str, Any] = {"shrink": model.memory.shrink, "parameters": parameters, "device": torch.device("cpu")}
        episode = Episode(query.inputs(), query.labels, query.ids, support, None, len(query))
        made = until_it_fits(partial(model._step, episode), **words)
        mark()
        made.loss.backward()
        model.zero_grad()

    found = recorded(step)
    return max(found.peak_before_mark() + sum(each.nbytes for each in parameters), found.peak())


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(F, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 8))


@pytest.mark.parametrize("make", [partial(nn.Linear, F, 8), mlp, partial(mlp, dropout=0.3), normalised])
@pytest.mark.parametrize("objects", [40, 600])
def test_a_step_is_estimated_as_it_is(make: Callable[[], nn.Module], objects: int) -> None:
    memory = FullMemory(similarity=Euclidean(learn_scale=True))
    model, module = parts(encoder=make(), memory=memory, optimizer=torch.optim.SGD)
    plan = Planner(model, module, quiet_trainer()).plan(support=objects, at_once=objects)
    gradients = sum(each.nbytes for each in model.parameters())
    real = counted(model, module, objects=objects)
    assert plan.step / HEAP + gradients == pytest.approx(real, rel=0.1)


def test_a_linear_encoder_takes_its_inputs_and_scores() -> None:
    plans = [planner().plan(support=size, at_once=size) for size in (1000, 2000)]
    inputs, keys, scores = 4 * F, 4 * 8, 4 * B
    assert (plans[1].step - plans[0].step) / HEAP / 1000 == pytest.approx(inputs + 2 * keys + 3 * scores, rel=0.1)


def test_a_mlp_takes_what_its_layers_save() -> None:
    """Of each object its inputs, and what goes into each layer: sums and what ReLU leaves of them."""
    plans = [planner(encoder=mlp()).plan(support=size, at_once=size) for size in (1000, 2000)]
    saved = 4 * (F + 2 * 300 + 2 * 200)
    of_object = (plans[1].step - plans[0].step) / HEAP / 1000
    assert saved <= of_object <= 1.5 * saved


@pytest.mark.parametrize(
    ("optimizer", "kept"), [(torch.optim.AdamW, 2), (torch.optim.SGD, 0), (torch.optim.Adagrad, 1)]
)
def test_what_the_optimizer_keeps(optimizer: Callable[..., Any], kept: int) -> None:
    weights = 4 * (F * 8 + 8)
    assert planner(optimizer=optimizer).plan().learned == (1 + kept) * weights


def test_a_chunk_is_what_counts_and_not_the_support() -> None:
    memory = ChunkedMemory(similarity=Dot(), chunk_size=50)
    plan = planner(encoder=mlp(), memory=memory, optimizer=torch.optim.SGD)
    of_chunk = planner(encoder=mlp()).plan(support=50, at_once=50)
    assert plan.sizes.at_once == 50
    assert plan.plan().step == pytest.approx(of_chunk.step, rel=0.3)
    assert plan.plan(at_once=300).step > 1.5 * plan.plan().step
    model, module = parts(encoder=mlp(), memory=memory)
    real = counted(model, module, objects=600)
    gradients = sum(each.nbytes for each in model.parameters())
    assert plan.plan().step / HEAP + gradients == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("values", ["object+label", "tabr"])
@pytest.mark.parametrize("hop_keys", ["tied", "apart"])
def test_hops_take_more_of_all_scores_or_of_all_keys(values: str, hop_keys: str) -> None:
    def hops() -> Hops:
        return Hops(hops=2, values=values, hop_keys=hop_keys, hop_search="anew", answer="read")

    whole = FullMemory(similarity=Euclidean(), hops=hops())
    for memory, tolerance in ((whole, 0.15), (ChunkedMemory(similarity=Euclidean(), chunk_size=50, hops=hops()), 0.4)):
        model, module = parts(encoder=mlp(), memory=memory, optimizer=torch.optim.SGD)
        plan = Planner(model, module, quiet_trainer()).plan()
        real = counted(model, module, objects=600)
        assert plan.step / HEAP + sum(each.nbytes for each in model.parameters()) == pytest.approx(real, rel=tolerance)


@pytest.mark.parametrize("values", ["object+label", "tabr"])
@pytest.mark.parametrize("hops", [1, 4])
@pytest.mark.parametrize("hop_keys", ["tied", "apart"])
def test_a_large_support_read_with_hops_takes_some_numbers_for_each_of_its_keys(
    values: str, hops: int, hop_keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Hops(hops=hops, values=values, hop_keys=hop_keys, hop_search="anew", answer="read")
    made.prepare(embedding_size=64, num_classes=C)
    memory, encoder = ChunkedMemory(similarity=Euclidean(), chunk_size=50, hops=made), nn.Linear(F, 64)
    _, module = parts()
    support = Support(module.store, module.train_rows.repeat(10))
    query, labels = torch.randn(4, 64), torch.zeros(4, dtype=torch.int64)
    monkeypatch.setattr(StoredKeys, "tiles", lambda *_: data_parts(len(support), 128))

    def step(_: Mark) -> None:
        memory.read_own(encoder, query, support, labels).log_mass.sum().backward()

    estimated = memory.read_bytes(support=len(support), embedding_size=64)
    assert recorded(step).peak() == pytest.approx(estimated, rel=0.25)


def test_graphs_that_are_kept_count_as_far_as_the_budget_goes() -> None:
    def step(budget: float) -> int:
        memory = ChunkedMemory(similarity=Dot(), chunk_size=50, activation_budget=budget)
        return planner(encoder=mlp(), memory=memory, optimizer=torch.optim.SGD).plan().step

    none, some, all_of_them = step(0), step(1e6), step(1e9)
    assert (some - none) / HEAP == pytest.approx(1e6, rel=0.3)
    whole = planner(encoder=mlp()).plan().step
    assert all_of_them == pytest.approx(whole, rel=0.2)


def test_topk_takes_its_cells_and_the_vectors_of_all() -> None:
    words: dict[str, Any] = {"index": ExactIndex(), "refresh_every": "auto", "refresh_share": 0.2}
    memory = TopKMemory(similarity=Dot(), k=3, chunk_size=500, **words)
    found = planner(encoder=mlp(), memory=memory, support=WholeSupport(), reading=ReadTopK(k=3, index=ExactIndex()))
    plan = found.plan()
    assert plan.sizes[:3] == (B, 1350, 3 * B)
    assert plan.held >= 1350 * 4 * 8
    assert plan.step == pytest.approx(planner(encoder=mlp()).plan(support=3 * B, at_once=3 * B).step, rel=0.2)
    assert memory._vectors is None


def test_what_reads_nothing_takes_no_more_for_a_larger_support() -> None:
    found = planner(memory=LinearMemory(similarity=Dot()))
    assert found.plan().step / HEAP < B * 4 * (F + 100) + 32 * 600 + 4 * (F * 8) * 3


def test_an_evaluation_holds_all_keys_and_encodes_a_batch() -> None:
    found = planner()
    plans = [found.plan(evaluated=size) for size in (10_000, 20_000)]
    assert (plans[1].evaluation - plans[0].evaluation) / HEAP / 10_000 == pytest.approx(4 * (F + 8), rel=0.05)
    assert plans[0].evaluation / HEAP > 1350 * (4 * 8 + 16) + 10_000 * 4 * F


def test_nothing_is_changed() -> None:
    encoder = nn.Sequential(nn.Linear(F, 30), nn.BatchNorm1d(30), nn.Dropout(0.5), nn.Linear(30, 8))
    model, module = parts(encoder=encoder, augmentation=lambda x: x + torch.randn_like(x))
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [each.training for each in encoder.modules()]
    Planner(model, module, quiet_trainer()).plan()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [each.training for each in encoder.modules()] == modes


def test_peak_is_of_the_process_and_need_is_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "resident_memory", lambda: 2 * 10**9)
    monkeypatch.setattr(memory_plan, "peak_memory", lambda _: 10**9)
    monkeypatch.setattr(memory_plan, "free_memory", lambda _: 10**9)
    plan = planner().plan()
    assert plan.fits
    assert plan.peak == 2 * 10**9 + plan.needed
    assert plan.needed == plan.process + plan.learned + max(plan.step, plan.evaluation)
    monkeypatch.setattr(memory_plan, "free_memory", lambda _: plan.needed - 1)
    assert not planner().plan().fits
    monkeypatch.setattr(memory_plan, "peak_memory", lambda _: 10**10)
    assert planner().plan().peak == 10**10
