"""Pages of objects in a real browser: what they show, how they are filtered, and that no name can do harm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.trained.album import Album
from memlab.trained.audit_page import audit_page
from memlab.trained.explain_page import explain_page
from memlab.trained.page import Card, Witness, page
from tests.browser import Opened, open_page
from tests.trained.memories import make, pictures, tables

__all__ = ["open_page"]

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "&lt;b&gt; ]]> <!--",
)


def image(name: str) -> torch.Tensor | None:
    """A picture of every object: grey of its number."""
    return torch.full((1, 8, 8), int(name.split()[1]) % 256, dtype=torch.uint8)


def card(place: int, names: tuple[str, ...], *, mistake: bool = False) -> Card:
    truth, answer = names[place % len(names)], names[(place + mistake) % len(names)]
    mass = {name: 0.7 if name == answer else 0.3 / (len(names) - 1) for name in names}
    evidence = [Witness(each, names[each % len(names)], 0.5, f"row {each}") for each in (100 + place, 101 + place)]
    classes = {"true class": truth, "answer": answer}
    return Card(
        f"said {answer}", f"id {place}, {place}.jpg", f"given {place}", classes, mistake, truth, mass, [], evidence
    )


def written(folder: Path, cards: list[Card], *, album: Album | None = None, title: str = "a title") -> Path:
    file = folder / "page.html"
    file.write_text(
        page(title, "some words", "Objects", cards, album or Album(image), expected="the true class"), encoding="utf-8"
    )
    return file


def shown(opened: Any) -> list[str]:
    """Headings of the cards that are to be seen."""
    found: list[str] = opened.get_by_role("article").locator("h3").all_inner_texts()
    return found


def status(opened: Any) -> str:
    text: str = opened.get_by_role("status").inner_text()
    return text


def wait_for_status(opened: Any, text: str) -> None:
    """By a locator: a condition in JavaScript would be evaluated in the page, whose policy forbids it."""
    opened.get_by_role("status").filter(has_text=re.compile(f"^{text}$")).wait_for()


NAMES = ("ape", "bear", "cat")


def test_cards_are_chosen_by_class_mistake_and_source(tmp_path: Path, open_page: Opened) -> None:
    opened = open_page(written(tmp_path, [card(place, NAMES, mistake=place in (2, 4)) for place in range(12)]))
    assert status(opened) == "12 of 12 shown"
    opened.get_by_label("true class").select_option("bear")  # places 1, 4, 7, 10, of which 4 is answered cat
    assert (status(opened), shown(opened)) == ("4 of 12 shown", ["said bear", "said cat", "said bear", "said bear"])
    opened.get_by_label("answer").select_option("cat")
    assert (status(opened), shown(opened)) == ("1 of 12 shown", ["said cat"])
    opened.get_by_role("button", name="Show all").click()
    wait_for_status(opened, "12 of 12 shown")
    opened.get_by_label("mistakes only").check()
    assert shown(opened) == ["said ape", "said cat"]
    opened.get_by_label("mistakes only").uncheck()
    opened.get_by_role("searchbox").fill(" 7.JPG ")
    assert shown(opened) == ["said bear"]
    opened.get_by_role("searchbox").fill("row 105")  # is evidence of two
    assert status(opened) == "2 of 12 shown"
    opened.get_by_role("searchbox").fill("nowhere")
    assert (status(opened), shown(opened)) == ("0 of 12 shown", [])


def test_keys_go_through_the_cards_that_are_shown(tmp_path: Path, open_page: Opened) -> None:
    opened = open_page(written(tmp_path, [card(place, NAMES, mistake=place in (2, 4)) for place in range(6)]))
    focus = "document.activeElement.querySelector('small') && document.activeElement.querySelector('small').textContent"
    opened.keyboard.press("m")
    assert status(opened) == "2 of 6 shown"
    seen = []
    for key in ("j", "j", "j", "k"):
        opened.keyboard.press(key)
        seen.append(opened.evaluate(focus))
    assert seen == ["id 2, 2.jpg", "id 4, 4.jpg", "id 4, 4.jpg", "id 2, 2.jpg"]
    opened.keyboard.press("/")
    opened.keyboard.type("jmk")
    assert opened.get_by_role("searchbox").input_value() == "jmk"
    opened.keyboard.press("Escape")
    wait_for_status(opened, "6 of 6 shown")


def test_every_picture_is_there_once_and_shown_wherever_it_is_wanted(tmp_path: Path, open_page: Opened) -> None:
    file = written(tmp_path, [card(place, NAMES) for place in range(12)])
    assert file.read_text().count("data:image/png") == 12 + 13
    opened = open_page(file)
    assert opened.locator("img").count() == 12 * 3
    drawn = "[...document.images].every((image) => image.complete && image.naturalWidth == 8 && image.alt)"
    assert opened.evaluate(drawn)


def test_without_a_script_all_is_shown_and_nothing_that_needs_one(tmp_path: Path, open_page: Opened) -> None:
    opened = open_page(written(tmp_path, [card(place, NAMES) for place in range(3)]), java_script_enabled=False)
    assert len(shown(opened)) == 3
    assert not opened.get_by_role("searchbox").is_visible()


@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_to_the_side(colour_scheme: str, tmp_path: Path, open_page: Opened) -> None:
    names = ("a" * 80, "b" * 80, "c")
    cards = [card(place, names, mistake=place == 1) for place in range(3)]
    opened = open_page(written(tmp_path, cards, title="t" * 200), width=390, color_scheme=colour_scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    opened = open_page(written(tmp_path, cards, album=Album(lambda _: None)), width=390, color_scheme=colour_scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_names_are_words_whatever_they_are(tmp_path: Path, open_page: Opened) -> None:
    cards = [card(place, HOSTILE, mistake=place == 1) for place in range(4)]
    file = written(tmp_path, cards, title=HOSTILE[0])
    opened = open_page(file)
    assert opened.title() == HOSTILE[0]
    assert shown(opened) == [each.heading for each in cards]
    assert opened.locator("script").count() == opened.locator("style").count() == 1
    assert opened.locator("svg, b, img[src='x']").count() == 0
    opened.get_by_label("true class").select_option(HOSTILE[2])
    assert status(opened) == "1 of 4 shown"


def test_what_is_slipped_in_is_not_run(tmp_path: Path) -> None:
    """Were a name not escaped, the policy would still refuse it: it names the script and the style by their digests."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', written(tmp_path, []).read_text())
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/=]{44}'; script-src 'sha256-[\w+/=]{44}'",
        policy.group(1),
    )


def test_large_pictures_are_made_small(tmp_path: Path, open_page: Opened) -> None:
    noise = torch.randint(0, 256, (3, 300, 200), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    file = written(tmp_path, [card(place, NAMES) for place in range(3)], album=Album(lambda _: noise))
    assert file.stat().st_size < 200_000
    opened = open_page(file)
    assert opened.evaluate("[document.images[0].naturalWidth, document.images[0].naturalHeight]") == [64, 96]


def test_probabilities_that_are_not_listed_are_summed_up(tmp_path: Path) -> None:
    mass = {f"c{n}": share for n, share in enumerate([0.02, 0.5, 0.2, 0.1, 0.08, 0.06, 0.03, 0.01])}
    few = Card("h", "s", "", {"true class": "c7"}, False, "c7", mass, [], [])
    text = written(tmp_path, [few], album=Album(lambda _: None)).read_text()
    listed = re.findall(r'<th scope="row">(.*?)</th><td>(.*?) <meter', text)
    assert [name for name, _ in listed] == ["c1", "c2", "c3", "c4", "c5", "c7", "2&nbsp;others"]
    assert listed[-1][1] == "5.0%"


@pytest.mark.parametrize("kind", ["pictures", "tables"])
def test_the_pages_of_commands_open(kind: str, tmp_path: Path, open_page: Opened) -> None:
    store = pictures() if kind == "pictures" else tables()
    memory = make(tmp_path / "m", store)
    memory.add(store.inputs[:2], HOSTILE[:2])
    answer = memory.predict(store.inputs[:5], k=3, coverage=0.9)
    (tmp_path / "explain.html").write_text(explain_page(memory, answer, list(store.inputs[:5]), [*"abcde"]))
    (tmp_path / "audit.html").write_text(audit_page(memory, memory.audit(k=3, limit=7)))
    opened = open_page(tmp_path / "explain.html", width=390)
    assert shown(opened) == answer.labels
    assert opened.locator("img").count() == (20 if kind == "pictures" else 0)
    opened = open_page(tmp_path / "audit.html", width=390)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    assert len(shown(opened)) == 7
    headings = opened.get_by_role("heading", level=2).all_inner_texts()
    assert headings == ["Labels that look wrong", "Near duplicates", "Classes"]
