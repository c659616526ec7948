from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from memlab import functional
from memlab.functional import definition
from tests.conftest import loop_class_scores

C = 4
LABELS = torch.tensor([0, 1, 0, 2, 2, 2, 1])  # class 3 has no object


def random_scores(*, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (scale * torch.randn(3, len(LABELS), generator=torch.Generator().manual_seed(1))).to(dtype)


def oracle(scores: Tensor) -> Tensor:
    return torch.tensor(loop_class_scores(scores.double().tolist(), LABELS.tolist(), C), dtype=torch.float64)


def test_dot_is_the_sum_of_products() -> None:
    query, keys = torch.randn(2, 5).double(), torch.randn(3, 5).double()
    expected = [[sum(a * b for a, b in zip(q, k, strict=True)) for k in keys.tolist()] for q in query.tolist()]
    torch.testing.assert_close(functional.dot_scores(query, keys), torch.tensor(expected, dtype=torch.float64))


class TestClassScores:
    @pytest.mark.parametrize("scale", [1.0, 30.0, 1e3])
    def test_equals_the_plain_loop(self, scale: float) -> None:
        scores = random_scores(scale=scale)
        torch.testing.assert_close(functional.class_scores(scores, LABELS, C), oracle(scores), rtol=1e-13, atol=1e-13)

    @pytest.mark.parametrize("scale", [1.0, 1e3])
    def test_float32_stays_within_rounding_of_the_loop(self, scale: float) -> None:
        scores = random_scores(scale=scale, dtype=torch.float32)
        found = functional.class_scores(scores, LABELS, C).double()
        torch.testing.assert_close(found, oracle(scores), rtol=1e-6, atol=1e-6)

    def test_a_class_far_below_the_best_keeps_its_exact_mass(self) -> None:
        scores = torch.tensor([[1000.0, -1000.0, -1000.0]])
        found = functional.class_log_mass(functional.class_scores(scores, torch.tensor([0, 1, 1]), 2))
        torch.testing.assert_close(found, torch.tensor([[0.0, -2000.0 + 0.6931472]]))

    @pytest.mark.parametrize(("scale", "bounded"), [(functional.SAFE_SCORE, True), (100.0, False)])
    def test_mass_of_ten_thousand_classes_is_exact_however_far_they_lie(self, scale: float, bounded: bool) -> None:
        """Scores from -scale to scale; in float32 within 1e-5 nats of float64, and a second time the same bits."""
        classes = 10_000
        scores = scale * torch.linspace(-1, 1, 2 * classes)[torch.randperm(2 * classes)].view(2, classes)
        scores = torch.cat([scores, scores - 0.5], dim=1).clamp(min=-scale)
        labels = torch.arange(classes).repeat(2)
        exact = definition.class_read(scores.double(), labels % 100, 100).class_scores
        found = functional.class_scores(scores, labels % 100, 100, bounded=bounded)
        assert (functional.class_log_mass(found.double()) - exact.log_softmax(1)).abs().max() < 1e-5
        pairs = scores.double().view(2, 2, classes).logsumexp(1)
        found = functional.class_scores(scores, labels, classes, bounded=bounded)
        assert (functional.class_log_mass(found.double()) - pairs.log_softmax(1)).abs().max() < 1e-5
        assert torch.equal(functional.class_scores(scores, labels, classes, bounded=bounded), found)

    @pytest.mark.parametrize("bounded", [False, True])
    def test_gradcheck(self, bounded: bool) -> None:
        scores = random_scores().requires_grad_()
        assert torch.autograd.gradcheck(lambda z: functional.class_scores(z, LABELS, C, bounded=bounded)[:, :3], scores)

    def test_gradient_of_a_row_that_is_left_out_is_zero_also_if_its_class_has_no_other(self) -> None:
        scores = random_scores()
        scores[:, [1, 6]] = -torch.inf  # both objects of class 1
        scores.requires_grad_()
        functional.nll(functional.class_scores(scores, LABELS, C), torch.tensor([0, 1, 2])).sum().backward()
        assert scores.grad is not None
        assert scores.grad.isfinite().all()
        assert scores.grad[:, [1, 6]].eq(0).all()

    def test_order_of_the_support_does_not_matter(self) -> None:
        scores, order = random_scores(), torch.randperm(len(LABELS))
        torch.testing.assert_close(
            functional.class_scores(scores[:, order], LABELS[order], C), functional.class_scores(scores, LABELS, C)
        )


class TestClassScoresOfCells:
    """Every query has cells of its own: one row at a time it is the same as a support that all queries share."""

    @pytest.mark.parametrize("scale", [1.0, 30.0, 1e3])
    def test_is_the_plain_loop_row_by_row(self, scale: float) -> None:
        scores = random_scores(scale=scale)
        scores[1, 2] = -torch.inf
        labels = torch.stack([LABELS, LABELS.flip(0), torch.full_like(LABELS, 3)])
        expected = [
            loop_class_scores([row], kinds, C)[0] for row, kinds in zip(scores.tolist(), labels.tolist(), strict=True)
        ]
        found = functional.read_cells(scores, labels, C).class_scores
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=1e-13)


class TestParts:
    @pytest.mark.parametrize("cut", [1, 3, 6])
    @pytest.mark.parametrize("base", [2.0, math.e])
    @pytest.mark.parametrize(("scale", "bounded"), [(1.0, False), (1.0, True), (30.0, False), (1e3, False)])
    def test_two_parts_read_one_after_the_other_are_the_whole(
        self, cut: int, base: float, scale: float, bounded: bool
    ) -> None:
        scores = random_scores(scale=scale)
        to_base = scores / math.log(base)
        parts = [slice(0, cut), slice(cut, None)]
        for order in (parts, reversed(parts)):
            sums = functional.ClassSums(C, like=to_base, base=base, bounded=bounded)
            for part in order:
                sums.add(to_base[:, part], LABELS[part])
            found = sums.class_scores() * math.log(base)
            torch.testing.assert_close(found, oracle(scores), rtol=1e-13, atol=1e-13)
            assert torch.equal(sums.lowest, to_base.min(dim=1).values)

    @pytest.mark.parametrize("base", [2.0, math.e])
    @pytest.mark.parametrize("bounded", [False, True])
    @pytest.mark.parametrize("in_place", [False, True])
    def test_part_gradients_put_together_are_the_gradient_of_the_whole(
        self, base: float, bounded: bool, in_place: bool
    ) -> None:
        scores = random_scores().requires_grad_()
        class_scores = functional.class_scores(scores, LABELS, C)
        upstream = torch.randn_like(class_scores)
        (whole,) = torch.autograd.grad(class_scores[:, :3], scores, upstream[:, :3])
        to_base = [each.detach() / math.log(base) for each in (scores, class_scores)]
        parts = [
            functional.class_scores_gradient(
                to_base[0][:, p].clone(),
                LABELS[p],
                to_base[1],
                upstream,
                base=base,
                bounded=bounded,
                spare=torch.empty(len(LABELS[p]), 3, dtype=scores.dtype) if in_place else None,
            )
            for p in (slice(0, 4), slice(4, None))
        ]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def loss_of(read: functional.ClassRead, targets: Tensor) -> Tensor:
    return functional.nll(read.class_scores, targets, read.lowest)


class TestLoss:
    def test_is_minus_the_log_of_the_class_mass(self) -> None:
        scores, targets = random_scores(), torch.tensor([0, 2, 1])
        weights = scores.softmax(dim=1)
        mass = torch.stack([weights[b, t == LABELS].sum() for b, t in enumerate(targets.tolist())])
        found = functional.nll(functional.class_scores(scores, LABELS, C), targets)
        torch.testing.assert_close(found, -mass.log())

    def test_gradcheck(self) -> None:
        scores, targets = random_scores().requires_grad_(), torch.tensor([0, 2, 1])
        assert torch.autograd.gradcheck(
            lambda z: functional.nll(functional.class_scores(z, LABELS, C), targets), scores
        )

    def test_gradcheck_of_log_mass_and_total(self) -> None:
        class_scores = torch.randn(3, C, dtype=torch.float64).requires_grad_()
        targets = torch.tensor([0, 2, 1])
        assert torch.autograd.gradcheck(lambda s: functional.own_read(s, targets)[:2], class_scores)

    def test_is_log_softmax_where_every_class_was_read(self) -> None:
        class_scores, targets = 30 * torch.randn(3, C, dtype=torch.float64), torch.tensor([0, 2, 1])
        expected = nn.functional.cross_entropy(class_scores, targets, reduction="none")
        torch.testing.assert_close(functional.nll(class_scores, targets), expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
    def test_of_an_absent_class_is_that_of_one_more_object(self, scale: float) -> None:
        """As far as the farthest read, or as far as gives it a mass of a thousandth; constant in the gradient."""
        scores, targets = random_scores(scale=scale).requires_grad_(), torch.tensor([3, 3, 3])
        floor = functional.ABSENT_MASS
        of_mass = scores.detach().logsumexp(1) + math.log(floor / (1 - floor))
        one_more = torch.minimum(of_mass, scores.detach().min(dim=1).values)
        log_weights = torch.cat([scores, one_more[:, None]], dim=1).log_softmax(1)
        expected = -log_weights[:, -1]
        class_scores, lowest = functional.read(scores, LABELS, C)
        found = functional.nll(class_scores, targets, lowest)
        torch.testing.assert_close(found, expected)
        assert (found >= -math.log(floor) - 1e-12).all()
        gradients = [torch.autograd.grad(loss.sum(), scores, retain_graph=True)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(gradients[0], log_weights[:, :-1].exp().detach())

    @pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 1e3])
    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_of_a_class_outside_the_nearest_is_never_lower_than_had_it_been_the_last_of_them(
        self, scale: float, k: int
    ) -> None:
        scores = random_scores(scale=scale).sort(dim=1, descending=True).values[:, :k]
        labels = torch.zeros(3, k, dtype=torch.int64)
        own = torch.ones(3, dtype=torch.int64)
        absent = loss_of(functional.read_cells(scores, labels, 2), own)
        labels[:, -1] = 1
        last = loss_of(functional.read_cells(scores, labels, 2), own)
        assert (absent >= last).all()

    def test_read_but_far_costs_no_more_than_not_read(self) -> None:
        scores = torch.tensor([[10.0, -10.0]])
        read, absent = (
            loss_of(functional.read(scores, torch.tensor(labels), 2), torch.tensor([1])) for labels in ([0, 1], [0, 0])
        )
        assert read.item() == pytest.approx(20)
        assert absent.item() == pytest.approx(20)

    @pytest.mark.parametrize("level", [-1e3, 0.0, 1e3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_of_an_absent_class_is_finite_and_pushes_all_away_at_any_level(
        self, level: float, dtype: torch.dtype
    ) -> None:
        scores = (random_scores() + level).to(dtype).float().requires_grad_()
        loss = functional.nll(functional.class_scores(scores, LABELS, C), torch.tensor([3, 3, 3]))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert scores.grad is not None
        assert scores.grad.ge(0).all()
        assert scores.grad.sum(dim=1).gt(0.99).all()

    def test_of_a_query_with_nothing_to_read_is_that_of_an_even_guess(self) -> None:
        scores = torch.full((2, len(LABELS)), -torch.inf)
        scores[1] = 0
        scores.requires_grad_()
        class_scores, lowest = functional.read(scores, LABELS, C)
        loss = functional.nll(class_scores, torch.tensor([0, 0]), lowest)
        loss.sum().backward()
        assert loss[0].item() == pytest.approx(math.log(C))
        assert scores.grad is not None
        assert scores.grad[0].eq(0).all()
        assert scores.grad.isfinite().all()
        assert functional.class_log_mass(class_scores)[0].exp().tolist() == pytest.approx([1 / C] * C)
        assert functional.answers(class_scores).tolist() == [-1, 2]


def test_exclude_rows_hides_the_object_with_the_id_and_no_other() -> None:
    scores = functional.exclude_rows(random_scores(), torch.arange(10, 17), torch.tensor([12, 99, 10]))
    assert scores.isneginf().nonzero().tolist() == [[0, 2], [2, 0]]
