from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity

KINDS: dict[type[Similarity], Callable[[Tensor, Tensor], Tensor]] = {
    Dot: torch.dot,
    Cosine: lambda u, m: u @ m / (u.norm() * m.norm()),
    Euclidean: lambda u, m: -(u - m).square().sum(),
    Distance: lambda u, m: -(u - m).norm(),
}


def definition(kind: type[Similarity], query: Tensor, keys: Tensor) -> Tensor:
    """Pair by pair."""
    return torch.stack([torch.stack([KINDS[kind](u, m) for m in keys]) for u in query])


@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_is_the_scale_times_the_definition(kind: type[Similarity], learn_scale: bool) -> None:
    query, keys = torch.randn(3, 5).double(), torch.randn(4, 5).double()
    similarity = kind(scale=2.5, learn_scale=learn_scale).double()
    torch.testing.assert_close(similarity(query, keys), 2.5 * definition(kind, query, keys), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
def test_distances_of_far_embeddings_are_those_of_near_ones(offset: float) -> None:
    """At 1,000 the squares of 64 coordinates are 6e7, of which float32 knows no more than 4."""
    generator = torch.Generator().manual_seed(0)
    query, keys = (torch.randn(n, 64, generator=generator) + offset for n in (5, 7))
    keys[:5] = query  # distance 0
    found = Euclidean()(query, keys)
    exact = definition(Euclidean, query.double(), keys.double()).float()
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-4)
    parts = torch.cat([Euclidean()(query, part) for part in keys.split(3)], dim=1)
    torch.testing.assert_close(parts, found, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_differences(kind: type[Similarity]) -> None:
    similarity = kind(scale=1.5, learn_scale=True).double()
    query, keys = (torch.randn(rows, 3, dtype=torch.float64, requires_grad=True) for rows in (4, 5))
    assert torch.autograd.gradcheck(
        lambda query, keys, *_: similarity(query, keys), (query, keys, *similarity.parameters())
    )


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 5e-3), (torch.float64, 1e-8)])
def test_a_distance_has_no_gradient_at_zero_and_one_of_unit_length_close_by(
    dtype: torch.dtype, rounding: float
) -> None:
    """Where squares are near 0 the root is steep: what their rounding does to the gradient stays small."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(6, 64, generator=generator, dtype=dtype)
    away = torch.nn.functional.normalize(torch.randn(6, 64, generator=generator, dtype=dtype), dim=-1)
    for gap in (0.0, 0.05, 1.0, 30.0):
        places, keys = query.clone().requires_grad_(), (query + gap * away).requires_grad_()
        Distance(scale=2.0)(places, keys).diagonal().sum().backward()
        assert places.grad is not None
        assert keys.grad is not None
        for found, sign in ((places.grad, 1), (keys.grad, -1)):
            expected = sign * 2 * away if gap else torch.zeros_like(away)
            torch.testing.assert_close(found, expected, rtol=0, atol=rounding)
    places = torch.ones(3, 64, dtype=dtype, requires_grad=True)
    Distance(scale=2.0, learn_scale=True)(places, torch.ones(4, 64, dtype=dtype)).sum().backward()
    assert places.grad is not None
    assert (places.grad == 0).all()


def test_cosine_of_a_vector_of_length_zero_is_zero() -> None:
    assert Cosine()(torch.zeros(1, 5), torch.randn(2, 5)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_scale_is_learned_only_if_asked(kind: type[Similarity]) -> None:
    assert list(kind(scale=2.0).parameters()) == []
    similarity = kind(scale=2.0, learn_scale=True).double()
    (log_scale,) = similarity.parameters()
    query, keys = torch.randn(3, 5).double(), torch.randn(4, 5).double()
    similarity(query, keys).sum().backward()
    # d/dlog(s) of s * z is s * z; the scale itself was rounded to float32
    torch.testing.assert_close(log_scale.grad, 2.0 * definition(kind, query, keys).sum(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_as_near_in_space_as_the_scores_are_high(kind: type[Similarity]) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    lengths = 10 ** (2 * torch.rand(50, 1, generator=generator, dtype=torch.float64))
    keys = lengths * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    keys[7] = 0
    similarity = kind(scale=2.5)
    query_points, key_points = similarity.points(query, keys)
    distances = (query_points[:, None] - key_points).norm(dim=-1)
    assert torch.equal(distances.argsort(), similarity(query, keys).argsort(descending=True))
    others = (query[:, None] - keys).norm(dim=-1)
    assert torch.equal(others.argsort(), distances.argsort()) == issubclass(kind, Euclidean)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_float32_whatever_the_encoder_gives_and_autocast_says(
    kind: type[Similarity], dtype: torch.dtype
) -> None:
    query, keys = (20 * torch.randn(3, 64)).to(dtype), (20 * torch.randn(4, 64)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = kind()(query, keys)
    assert found.dtype is torch.float32
    exact = definition(kind, query.double(), keys.double()).float()
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "abc", True])
def test_scale_must_be_a_number_above_zero(scale: object) -> None:
    with pytest.raises(ValueError, match=f"scale={scale}: must be a number above 0"):
        Dot(scale=scale)  # type: ignore[arg-type]


def test_learn_scale_must_be_true_or_false() -> None:
    with pytest.raises(ValueError, match="learn_scale=maybe: must be true or false"):
        Dot(learn_scale="maybe")  # type: ignore[arg-type]


def test_rescaled_scores_are_as_they_were_with_the_gradient_of_the_scale_alone() -> None:
    similarity = Euclidean(scale=0.5, learn_scale=True)
    scores = torch.tensor([-3.0, torch.inf])
    found = similarity.rescaled(scores)
    assert torch.equal(found, scores)
    found[0].backward()
    assert similarity.log_scale is not None
    assert similarity.log_scale.grad == -3  # of exp(log_scale) s, with s = -6
    assert Euclidean(scale=0.5).rescaled(scores) is scores
