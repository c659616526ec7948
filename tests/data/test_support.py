from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from memlab.data.support import AllSupport, BalancedSupport, SupportSampler, UniformSupport, WholeSupport

LABELS = torch.tensor([0] * 40 + [1] * 30 + [2] * 4 + [3] * 26)
N = len(LABELS)
BATCH = torch.tensor([0, 5, 41, 70, 99])
SAMPLERS: list[SupportSampler] = [
    AllSupport(),
    UniformSupport(size=1),
    UniformSupport(size=50),
    UniformSupport(size=N - len(BATCH)),
    UniformSupport(size=0.25),
    UniformSupport(size="auto"),
    BalancedSupport(size="auto"),
    BalancedSupport(size=0.25),
    BalancedSupport(size=4),
    BalancedSupport(size=30),
    BalancedSupport(size=N - len(BATCH)),
]


def draw(sampler: SupportSampler, seed: int = 0) -> Tensor:
    size = sampler.count(train_size=N, batch_size=len(BATCH))
    drawn = sampler.draw(labels=LABELS, batch=BATCH, size=size, generator=torch.Generator().manual_seed(seed))
    assert drawn is not None
    return drawn


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'size', '')}")
class TestEverySampler:
    def test_draws_without_replacement_and_never_from_the_batch(self, sampler: SupportSampler) -> None:
        for seed in range(20):
            rows = draw(sampler, seed).tolist()
            assert len(rows) == len(set(rows)) == sampler.count(train_size=N, batch_size=len(BATCH))
            assert set(rows) <= set(range(N)) - set(BATCH.tolist())

    def test_is_a_function_of_the_generator(self, sampler: SupportSampler) -> None:
        assert torch.equal(draw(sampler, 1), draw(sampler, 1))


def test_all_draws_every_other_object() -> None:
    assert sorted(draw(AllSupport()).tolist()) == sorted(set(range(N)) - set(BATCH.tolist()))


def test_uniform_draws_differ_and_every_object_is_equally_likely() -> None:
    assert not torch.equal(draw(UniformSupport(size=20), 1), draw(UniformSupport(size=20), 2))
    draws = 4000
    counts = Counter(row for seed in range(draws) for row in draw(UniformSupport(size=19), seed).tolist())
    expected = draws * 19 / (N - len(BATCH))
    # 95 binomial counts with p = 0.2: standard deviation 25; five of them leave no room for a bias that matters
    assert all(abs(counts[row] - expected) < 5 * (draws * 0.2 * 0.8) ** 0.5 for row in range(N) if row not in BATCH)


def test_balanced_draws_as_many_of_each_class_as_there_are() -> None:
    free = [LABELS[[i for i in range(N) if i not in BATCH]].eq(c).sum().item() for c in range(4)]
    assert free == [38, 29, 3, 25]
    for size, quotas in ((4, [1, 1, 1, 1]), (12, [3, 3, 3, 3]), (30, [9, 9, 3, 9]), (92, [38, 29, 3, 22]), (95, free)):
        found = LABELS[draw(BalancedSupport(size=size))].bincount(minlength=4).tolist()
        assert sum(found) == size
        if size != 92:
            assert found == quotas
        else:  # one of the two largest classes is not used up; which, is left to chance
            assert found[2] == 3
            assert found[3] == 25


def test_balanced_leaves_the_odd_ones_to_chance_and_never_a_class_out() -> None:
    seen = set()
    for seed in range(50):
        counts = LABELS[draw(BalancedSupport(size=6), seed)].bincount(minlength=4)
        assert sorted(counts.tolist()) == [1, 1, 2, 2]
        seen.add(tuple(counts.tolist()))
    assert len(seen) == 6


@pytest.mark.parametrize("kind", [UniformSupport, BalancedSupport])
class TestSize:
    @pytest.mark.parametrize("size", [0, -5, 1.5, "abc"])
    def test_must_be_a_whole_number_above_zero(self, kind: type[UniformSupport], size: object) -> None:
        with pytest.raises(ValueError, match=f"size={size}: must be a whole number of at least 1"):
            kind(size=size)  # type: ignore[arg-type]

    def test_must_be_left_beside_the_batch(self, kind: type[UniformSupport]) -> None:
        kind(size=90).check_fit(labels=LABELS, batch_size=10)
        with pytest.raises(ValueError, match=r"size=91: must be at most 90, .* 10 leaves of the 100"):
            kind(size=91).check_fit(labels=LABELS, batch_size=10)


def test_balanced_needs_one_object_of_each_class() -> None:
    with pytest.raises(ValueError, match=r"size=3: must be at least 4"):
        BalancedSupport(size=3).check_fit(labels=LABELS, batch_size=10)


@pytest.mark.parametrize(("batch_size", "size"), [(1, 8), (10, 80), (12, 88), (50, 50), (99, 1)])
@pytest.mark.parametrize("kind", [UniformSupport, BalancedSupport])
def test_auto_is_eight_for_each_query_or_what_a_batch_leaves(
    kind: type[UniformSupport], batch_size: int, size: int
) -> None:
    assert kind(size="auto").count(train_size=N, batch_size=batch_size) == size


@pytest.mark.parametrize("kind", [UniformSupport, BalancedSupport])
@pytest.mark.parametrize(("share", "size"), [(0.05, 5), (0.5, 50), (0.001, 1)])
def test_below_one_the_size_is_a_share_of_the_training_set(kind: type[UniformSupport], share: float, size: int) -> None:
    assert kind(size=share).count(train_size=N, batch_size=7) == size


def test_a_share_must_be_left_beside_the_batch_too() -> None:
    with pytest.raises(ValueError, match=r"size=0\.95: must be at most 90, .* 10 leaves of the 100"):
        UniformSupport(size=0.95).check_fit(labels=LABELS, batch_size=10)


def test_whole_is_the_training_set_with_the_batch_in_it() -> None:
    whole = WholeSupport()
    whole.check_fit(labels=LABELS, batch_size=N)
    assert whole.is_whole
    assert whole.count(train_size=N, batch_size=10) == N
