"""The lines of RESULTS.md that teach new classes run, on digits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from memlab.data import datasets
from memlab.data.datasets import LabelledData
from memlab.data.objects import ObjectStore
from tests.conftest import REPOSITORY
from tests.trained.memories import make


def test_new_classes_are_taught_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / ".github" / "RESULTS.md").read_text(), re.S)
    data = datasets.digits(test_fraction=0.2, split_seed=0)

    def here(**_: object) -> LabelledData:
        return data

    monkeypatch.setattr(datasets, "torchvision_images", here)
    old = data.train_rows[data.store.labels[data.train_rows] < 8]
    inputs, labels = data.store.inputs[old], data.store.labels[old]
    store = ObjectStore(inputs=inputs, labels=labels, class_names=tuple("01234567"))
    make(tmp_path / "outputs" / "EIGHT" / "memory", store, levels=data.levels)
    exec(code, {})
    shares = [
        [float(share) for share in re.findall(r"([\d.]+)%", line)] for line in capsys.readouterr().out.splitlines()
    ]
    plain, alike = shares
    assert len(plain) == len(alike) == 2
    assert alike[0] >= plain[0]
    assert plain[1] > 20
    assert torch.equal(data.store.labels[old], labels)
