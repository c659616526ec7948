"""Reading a whole encoded memory, and the evidence for what was read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memlab import functional
from memlab.evidence import strongest
from memlab.memory import FullMemory
from memlab.similarity import Cosine, Dot
from memlab.stored_keys import StoredKeys
from tests.conftest import random_support

N, C = 29, 3


@pytest.fixture(params=[1, 8, N, 100])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StoredKeys:
    """A memory of 29 keys, read in tiles of several sizes."""
    tiles = [slice(start, start + request.param) for start in range(0, N, request.param)]
    monkeypatch.setattr(StoredKeys, "tiles", lambda *_: tiles)
    torch.manual_seed(0)
    return StoredKeys.encode(
        encoder=nn.Linear(6, 4).double(), similarity=Dot(), support=random_support(N, num_classes=C), batch_size=10
    )


def queries() -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
def test_reading_in_tiles_is_reading_at_once(stored: StoredKeys, exclude: torch.Tensor | None) -> None:
    scores = queries() @ stored.keys.T
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude)
    expected = functional.class_scores(scores, stored.labels, C)
    torch.testing.assert_close(stored.class_scores(queries(), exclude), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
def test_gradient_of_queries_keys_and_scale_is_that_of_reading_at_once(
    stored: StoredKeys, exclude: torch.Tensor | None
) -> None:
    stored.similarity = Cosine(scale=5.0, learn_scale=True).double()
    query, stored.keys = queries().requires_grad_(), stored.keys.clone().requires_grad_()
    scores = stored.similarity(query, stored.keys)
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude)
    wanted = [query, stored.keys, *stored.similarity.parameters()]
    targets = torch.arange(5) % C
    expected = functional.nll(functional.class_scores(scores, stored.labels, C), targets).sum()
    found = functional.nll(stored.class_scores(query, exclude), targets).sum()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_the_wider_type_of_queries_and_keys_decides(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    keys, labels = torch.randn(N, 4, dtype=dtypes[1]), torch.arange(N) % C
    query = queries().to(dtypes[0])
    found = StoredKeys(keys, labels, torch.arange(N), C, Dot()).class_scores(query)
    expected = functional.class_scores(query.double() @ keys.double().T, labels, C)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_autocast_does_not_touch_the_read() -> None:
    keys, query = torch.randn(N, 4, requires_grad=True), queries().float().requires_grad_()
    stored = StoredKeys(keys, torch.arange(N) % C, torch.arange(N), C, Dot())
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            class_scores = stored.class_scores(query)
            results.append([class_scores, *torch.autograd.grad(class_scores.sum(), [query, keys])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("queries", [0, 1, 100, 10**7])
def test_tiles_cover_the_keys_once(queries: int) -> None:
    stored = StoredKeys(torch.randn(100_000, 2), torch.zeros(100_000), torch.arange(100_000), 1, Dot())
    assert torch.equal(torch.cat([stored.ids[tile] for tile in stored.tiles(queries)]), stored.ids)


def test_reading_stored_keys_is_reading_the_support() -> None:
    encoder, support = nn.Linear(6, 4).double(), random_support(N, num_classes=C)
    keys = StoredKeys.encode(encoder=encoder, similarity=Dot(), support=support, batch_size=7)
    found = keys.class_scores(queries())
    torch.testing.assert_close(found, FullMemory(similarity=Dot())(encoder, queries(), support))
    assert not found.requires_grad


@pytest.mark.parametrize("k", [1, 4, N])
@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
def test_evidence_is_the_top_of_the_weights(stored: StoredKeys, k: int, exclude: torch.Tensor | None) -> None:
    scores = queries() @ stored.keys.T
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude)
    expected = scores.softmax(dim=1).sort(dim=1, descending=True)
    found = strongest(stored, queries(), k=k, exclude=exclude)
    torch.testing.assert_close(found.weights, expected.values[:, :k])
    assert torch.equal(found.labels, stored.labels[found.ids])
    weights_of_ids = scores.softmax(dim=1).gather(1, found.ids)
    torch.testing.assert_close(weights_of_ids, found.weights)


@pytest.mark.parametrize(("k", "rule"), [(0, "whole number"), (1.5, "whole number"), (N + 1, f"at most {N}")])
def test_k_must_fit_the_memory(stored: StoredKeys, k: object, rule: str) -> None:
    with pytest.raises(ValueError, match=f"evidence.k={k}: must be .*{rule}"):
        strongest(stored, queries(), k=k)  # type: ignore[arg-type]
