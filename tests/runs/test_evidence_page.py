"""The page of a run tells of each object what its prediction says."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.data.datasets import LabelledData
from memlab.data.objects import ObjectStore
from memlab.memory.evidence import Evidence
from memlab.memory.prediction import Prediction
from memlab.runs.evidence_page import write_evidence_page
from tests.browser import Opened, open_page

__all__ = ["open_page"]


def found() -> Prediction:
    """Three test objects, of which the second is a mistake, and the last found less evidence."""
    mass = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    ids = torch.tensor([[0, 1], [2, 3], [3, -1]])
    evidence = Evidence(ids, ids.clamp(min=0) % 2, torch.tensor([[0.6, 0.3], [0.5, 0.4], [0.7, 0.0]]))
    return Prediction(torch.tensor([4, 5, 6]), torch.tensor([0, 1, 1]), mass.log(), evidence)


def data(inputs: Any) -> LabelledData:
    store = ObjectStore(inputs=inputs, labels=torch.tensor([0, 1, 0, 1, 0, 1, 1]), class_names=("no", "<i>"))
    return LabelledData("made up", store, torch.arange(4), torch.arange(4, 7), source="file {}".format, levels=16)


PICTURES = torch.arange(7, dtype=torch.uint8).repeat_interleave(64).view(7, 1, 8, 8)


class Words(HTMLParser):
    """What can be read, with a bar between elements."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize(
    "inputs", [PICTURES, torch.randn(7, 3), torch.randn(7, 1, 8, 8), (torch.randn(7, 3), torch.randn(7, 2))]
)
def test_each_object_has_its_answer_and_its_evidence(inputs: Any, tmp_path: Path) -> None:
    told = write_evidence_page(found(), data(inputs), tmp_path / "e.html", title="$t", objects=2)
    assert told.startswith(f"evidence of 2 test objects, 1 of 1 mistakes first: {tmp_path / 'e.html'} (0.0 MiB)")
    parser = Words()
    parser.feed((tmp_path / "e.html").read_text())
    text = "|".join(parser.words)
    assert "2 of 3 test objects: 1 of 1 mistakes" in text
    mistake, right = (text[text.index(head) :] for head in ("Mistake: answered no, is <i>|", "Right: <i>|"))
    mistake = mistake[: mistake.index("Right")]
    assert "id 5, file 5" in mistake
    assert "no|80.0% |<i>|20.0% " in mistake
    assert ("data:image" in (tmp_path / "e.html").read_text()) is (inputs is PICTURES)
    between = "| 50.0%|" if inputs is PICTURES else "|50.0% |"
    assert f"no{between}id 2, file 2" in mistake
    assert "id 3, file 3" in mistake
    assert "id 6, file 6" in right
    assert "id 3, file 3" in right
    assert "id -1" not in text
    assert "file 4" not in text


@pytest.mark.parametrize("inputs", [PICTURES, torch.randn(7, 3)])
def test_hops_stand_beside_the_read_that_answers(inputs: Any, tmp_path: Path) -> None:
    hop = Evidence(torch.tensor([[1, 0]] * 3), torch.tensor([[1, 0]] * 3), torch.tensor([[0.25, 0.125]] * 3))
    one = found()._replace(earlier=(hop, hop))
    write_evidence_page(one, data(inputs), tmp_path / "e.html", title="t", objects=3)
    parser = Words()
    parser.feed((tmp_path / "e.html").read_text())
    text = "|".join(parser.words)
    mistake = text[text.index("Mistake: ") : text.index("Right: ")]
    assert mistake.index("Hop 1|") < mistake.index("Hop 2|") < mistake.index("Answer|") < mistake.index("file 2")
    assert mistake.count("25.0%") == mistake.count("12.5%") == mistake.count("id 1, file 1") == 2
    assert "Each hop has its own" in text


def test_of_a_memory_without_objects_the_answers_alone_are_shown(tmp_path: Path) -> None:
    none = found()._replace(evidence=found().evidence._replace(ids=torch.full((3, 2), -1)))
    write_evidence_page(none, data(PICTURES), tmp_path / "e.html", title="t", objects=9)
    text = (tmp_path / "e.html").read_text()
    assert text.count("this memory reads no objects") == text.count("<article") == 3
    assert "frames" not in text


def test_the_page_opens_in_a_browser(tmp_path: Path, open_page: Opened) -> None:
    write_evidence_page(found(), data(PICTURES), tmp_path / "e.html", title="t", objects=9)
    opened = open_page(tmp_path / "e.html", width=390)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.get_by_role("status").inner_text() == "3 of 3 shown"
    opened.get_by_label("mistakes only").check()
    assert opened.get_by_role("article").locator("h3").all_inner_texts() == ["Mistake: answered no, is <i>"]
    assert opened.evaluate("[...document.images].every((image) => image.naturalWidth == 8)")
