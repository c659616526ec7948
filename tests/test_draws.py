"""What is drawn for an object follows from the step and the object, and is as random as it should be."""

from __future__ import annotations

from hashlib import blake2b

import pytest
import torch
from torch import Tensor

from memlab import draws
from memlab.encoders import Dropout

CPU = torch.device("cpu")
N, WIDTH = 4000, 50


def uniform(ids: Tensor, *widths: int, purpose: int = 0, seed: int = 7) -> list[Tensor]:
    with draws.of_objects(ids, purpose=purpose, seed=seed):
        return [draws.uniform(len(ids), width, device=CPU) for width in widths]


def in_plain_python(number: int, column: int, *, call: int, purpose: int, seed: int) -> float:
    """``lowbias32`` without its last shift, which the lowest bits alone would feel."""

    def mixed(word: int) -> int:
        word &= 0xFFFFFFFF
        word = ((word ^ (word >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        return ((word ^ (word >> 15)) * 0x846CA68B) & 0xFFFFFFFF

    word = int.from_bytes(blake2b(f"{seed} {purpose}".encode(), digest_size=4).digest())
    row = mixed(number * 0x9E3779B1 + word)
    bits = mixed(row + mixed(column * 0x85EBCA77 + call * 0xC2B2AE3D + 1))
    return (bits - (bits >= 2**31) * 2**32 >> 8) / 2**23


def test_equals_plain_python() -> None:
    ids = torch.tensor([0, 1, 59_999, 123_456_789])
    found = uniform(ids, 3, 5, purpose=2, seed=2**61 + 5)
    for call, numbers in enumerate(found):
        expected = [
            [in_plain_python(int(number), j, call=call, purpose=2, seed=2**61 + 5) for j in range(numbers.shape[1])]
            for number in ids
        ]
        assert numbers.tolist() == expected


def test_depends_on_the_object_alone() -> None:
    ids = torch.randperm(N)
    whole = uniform(ids, 4, WIDTH)
    part = torch.randperm(N)[:100]
    assert all(map(torch.equal, (numbers[part] for numbers in whole), uniform(ids[part], 4, WIDTH)))


def test_is_the_same_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a GPU is given to compute."""
    on_host = uniform(torch.arange(N), 4, WIDTH)
    monkeypatch.setattr(draws, "_numpy", draws._torch)
    assert all(map(torch.equal, on_host, uniform(torch.arange(N), 4, WIDTH)))


def correlation(first: Tensor, second: Tensor) -> float:
    """Of numbers with mean 0 and variance 1 / 3, in standard deviations of what chance makes it."""
    return float(3 * (first.double() * second.double()).mean() * first.numel() ** 0.5)


def test_is_uniform_and_nothing_goes_with_anything() -> None:
    ids = torch.arange(N)
    first, second = uniform(ids, WIDTH, WIDTH)
    (step,), (purpose,) = uniform(ids, WIDTH, seed=8), uniform(ids, WIDTH, purpose=1)
    counts = torch.histc(first, 64, -1, 1)
    assert float(((counts - counts.mean()).square() / counts.mean()).sum()) < 63 + 5 * 126**0.5
    assert float(first.min()) >= -1
    assert float(first.max()) < 1
    others = [(first, other) for other in (second, step, purpose)]  # another layer, step, role
    near = [(each[k:], each[:-k]) for each in (first, first.mT) for k in (1, 2, 16)]
    assert all(abs(correlation(*pair)) < 5 for pair in others + near)
    of_objects = torch.corrcoef(first[:500].double()).fill_diagonal_(0) * WIDTH**0.5
    assert 0.9 < float(of_objects.std()) < 1.1
    assert float(of_objects.abs().max()) < 6


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
def test_drops_a_share(p: float) -> None:
    with draws.of_objects(torch.arange(N), purpose=0, seed=3):
        share = float(draws.dropped(N, WIDTH, p=p, device=CPU).double().mean())
    assert abs(share - p) <= 5 * (p * (1 - p) / (N * WIDTH)) ** 0.5


def test_the_step_under_way_is_that_begun_last() -> None:
    draws.begin_step(7)
    assert draws.seed_of_step() == 7
    with draws.of_objects(torch.arange(5), purpose=0):
        assert torch.equal(draws.uniform(5, 3, device=CPU), *uniform(torch.arange(5), 3))


def test_of_unknown_objects_torch_decides() -> None:
    torch.manual_seed(0)
    expected = [torch.empty(5, 3).uniform_(-1, 1), torch.rand(5, 3) < 0.5]
    for context in ([], [torch.arange(4)]):  # none, or other ones
        torch.manual_seed(0)
        with draws.of_objects(*context, purpose=0) if context else torch.no_grad():
            found = [draws.uniform(5, 3, device=CPU), draws.dropped(5, 3, p=0.5, device=CPU)]
        assert all(map(torch.equal, expected, found))


def test_the_context_around_is_back_afterwards() -> None:
    (expected,) = uniform(torch.arange(5), 3)
    with draws.of_objects(torch.arange(5), purpose=0, seed=7):
        with pytest.raises(KeyError), draws.of_objects(torch.arange(9), purpose=1):
            raise KeyError
        assert torch.equal(draws.uniform(5, 3, device=CPU), expected)


def test_a_compiled_encoder_draws_anew_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uniform", "dropped"):
        monkeypatch.setattr(draws, name, getattr(draws, name))  # as they were, afterwards
    draws.leave_uncompiled()
    encoder = Dropout(0.5)
    compiled, x = torch.compile(encoder, backend="eager"), torch.ones(6, 40)
    found = []
    for seed in (1, 2, 1):
        with draws.of_objects(torch.arange(6), purpose=0, seed=seed):
            found.append(compiled(x))
        with draws.of_objects(torch.arange(6), purpose=0, seed=seed):
            assert torch.equal(found[-1], encoder(x))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
