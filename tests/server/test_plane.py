"""The map: against numpy's singular vectors of all keys."""

from __future__ import annotations

import numpy as np
import torch

from memlab.server.plane import plane
from memlab.trained import TrainedMemory


def test_equals_singular_vectors(of_rows: TrainedMemory) -> None:
    view = of_rows.view
    order = view.content.ids.argsort()
    keys = view.content.keys[order].double().numpy()
    centred = keys - keys.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ axes[:2].T
    points = plane(view, 1000)["points"]
    found = np.array([[point["x"], point["y"]] for point in points])
    assert np.allclose(np.abs(found), np.abs(wanted), atol=1e-8)
    assert [point["id"] for point in points] == view.content.ids[order].tolist()
    assert [point["label"] for point in points] == view.content.label_names(view.content.ids[order])
    # a mirror image would be as good: the largest component of each axis tells which it is
    for axis, column in zip(axes[:2], found.T, strict=True):
        sign = np.sign(axis[np.abs(axis).argmax()])
        assert np.allclose(column, centred @ (sign * axis), atol=1e-8)


def test_a_sample_is_of_the_same_map(of_rows: TrainedMemory) -> None:
    whole = {point["id"]: point for point in plane(of_rows.view, 1000)["points"]}
    some = plane(of_rows.view, 10)
    assert (some["shown"], some["total"]) == (10, len(whole))
    assert all(whole[point["id"]] == point for point in some["points"])
    assert some == plane(of_rows.view, 10)
    assert torch.initial_seed() == torch.initial_seed()
