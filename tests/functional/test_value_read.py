"""The value read: the plain loop's value, whatever the parts, and the gradient that finite differences have."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memlab import functional
from memlab.functional import ValueRead, Values, ValueSums
from memlab.memory.tiles import Tiles, read_value_tiles

B, M, D, H = 3, 11, 4, 5
IDS, EXCLUDE = torch.arange(M) + 20, torch.tensor([22, -1, 30])


class Case:
    """Queries and keys with values, scores by dot products of a given size."""

    def __init__(self, *, scale: float = 1.0, places: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.query, self.keys = scale * drawn(B, 3), drawn(M, 3)
        self.values = Values(drawn(M, D), drawn(M, H) if places else None)
        self.origins = drawn(B, H) if places else None

    def scores(self) -> Tensor:
        return functional.exclude_rows(self.query @ self.keys.T, IDS, EXCLUDE)

    def tiles(self, size: int) -> ValueRead:
        parts = [slice(start, min(start + size, M)) for start in range(0, M, size)]
        labels = torch.zeros(M, dtype=torch.int64)
        tiles = Tiles(parts=parts, labels=labels, num_classes=1, ids=IDS, exclude=EXCLUDE, bounded=False, is_root=False)
        return read_value_tiles(self.query, self.keys, tiles, self.values, self.origins)

    def inputs(self) -> list[Tensor]:
        found = [self.query, self.keys, *self.values, self.origins]
        return [each.requires_grad_() for each in found if each is not None]


def loop(case: Case) -> ValueRead:
    """``sum_i p_bi v_bi``, object by object."""
    shared, differences, totals = [], [], []
    for b, row in enumerate(case.scores().tolist()):
        top = max(row)
        shares = [math.exp(z - top) for z in row]
        total = math.fsum(shares)
        values = case.values.shared.tolist()
        shared.append([math.fsum(p / total * v[d] for p, v in zip(shares, values, strict=True)) for d in range(D)])
        totals.append(top + math.log(total))
        if case.values.places is not None and case.origins is not None:
            from_b = case.origins[b].tolist()
            places = case.values.places.tolist()
            differences.append(
                [
                    math.fsum(p / total * max(from_b[h] - c[h], 0.0) for p, c in zip(shares, places, strict=True))
                    for h in range(H)
                ]
            )

    def wide(numbers: object) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64)

    return ValueRead(wide(shared), wide(differences) if differences else None, wide(totals))


def check(found: ValueRead, expected: ValueRead) -> None:
    torch.testing.assert_close(found.shared, expected.shared, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-12, atol=1e-12)
    assert (found.differences is None) == (expected.differences is None)
    if found.differences is not None:
        torch.testing.assert_close(found.differences, expected.differences, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e3])
class TestIsThePlainLoop:
    def test_by_its_definition(self, places: bool, scale: float) -> None:
        case = Case(places=places, scale=scale)
        check(functional.value_read(case.scores(), case.values, case.origins), loop(case))

    @pytest.mark.parametrize("size", [1, 4, M, 100])
    def test_in_tiles(self, places: bool, scale: float, size: int) -> None:
        case = Case(places=places, scale=scale)
        check(case.tiles(size), loop(case))

    def test_of_objects_that_each_query_has_of_its_own(self, places: bool, scale: float) -> None:
        case = Case(places=places, scale=scale)
        own = Values(*(None if each is None else each.expand(B, *each.shape) for each in case.values))  # type: ignore[arg-type]
        check(functional.value_read(case.scores(), own, case.origins), loop(case))

    @pytest.mark.parametrize("size", [1, 4, M])
    def test_gradient_in_tiles_is_autograds_of_the_definition(self, places: bool, scale: float, size: int) -> None:
        case = Case(places=places, scale=scale)
        inputs = case.inputs()
        gradients = []
        for read in (case.tiles(size), functional.value_read(case.scores(), case.values, case.origins)):
            loss = sum(each.sin().sum() for each in read if each is not None)
            assert isinstance(loss, Tensor)
            gradients.append(torch.autograd.grad(loss, inputs))
        torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [4, M])
def test_gradcheck(size: int) -> None:
    case = Case()
    inputs = case.inputs()

    def read(*_: Tensor) -> tuple[Tensor, ...]:
        return tuple(each for each in case.tiles(size) if each is not None)

    assert torch.autograd.gradcheck(read, inputs)


def test_who_reads_nothing_reads_zero_and_has_no_gradient() -> None:
    case = Case()
    case.query, case.keys = case.query[:1], case.keys[:1]
    inputs = [case.query.requires_grad_(), case.keys.requires_grad_()]
    values, origins = case.values.of(slice(0, 1)), torch.ones(1, H, dtype=torch.float64)
    one = {
        "ids": IDS[:1],
        "exclude": IDS[:1],
        "labels": torch.zeros(1),
        "num_classes": 1,
        "bounded": False,
        "is_root": False,
    }
    tiles = Tiles(parts=[slice(0, 1)], **one)  # type: ignore[arg-type]
    by_definition = functional.value_read(
        functional.exclude_rows(case.query @ case.keys.T, IDS[:1], IDS[:1]), values, origins
    )
    for read in (by_definition, read_value_tiles(case.query, case.keys, tiles, values, origins)):
        assert read.differences is not None
        assert read.shared.eq(0).all()
        assert read.differences.eq(0).all()
        assert read.total.isneginf().all()
        gradients = torch.autograd.grad(read.shared.sum() + read.differences.sum(), inputs)
        assert all(each.eq(0).all() for each in gradients)


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_reads_of_parts_are_merged_to_that_of_the_whole(places: bool, scale: float) -> None:
    case = Case(places=places, scale=scale)
    whole = functional.value_read(case.scores(), case.values, case.origins)
    slices = (slice(0, 4), slice(4, 4), slice(4, 5), slice(5, M))
    parts = [functional.value_read(case.scores()[:, part], case.values.of(part), case.origins) for part in slices]
    shared, differences, total = (None if each[0] is None else torch.stack(each) for each in zip(*parts, strict=True))
    assert shared is not None
    assert total is not None
    check(functional.merged_value_reads(ValueRead(shared, differences, total)), whole)


def test_sums_in_nats_are_those_in_bits() -> None:
    case = Case()
    reads = []
    for base, factor in ((math.e, 1.0), (2, functional.LOG2_E)):
        sums = ValueSums(case.values, queries=B, base=base)
        for part in (slice(0, 4), slice(4, M)):
            scores = (factor * case.scores()[:, part]).mT.contiguous().mT
            sums.add(scores, case.values.of(part), case.origins, spare=torch.empty(scores.mT.shape).double())
        reads.append(sums.read())
    check(*reads)
