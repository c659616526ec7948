"""The page in a real browser on a real server: what users do there, found by role and name as by a screen reader."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from memlab.data.objects import ObjectStore
from memlab.memory import Euclidean
from memlab.trained import load
from tests import browser
from tests.server.clients import picture, process
from tests.trained.memories import columned, make, spoken, tables

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CLASSES = 4
STORED, UNKNOWN = 0, 9
"""A digit that is in the memory, and one that is not."""
VIEWS = ("Ask", "Doubts", "Map", "Examples", "Journal")
PHONE = {"width": 390, "height": 844}
ATTACK = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
TIMEOUT = 60_000
"""ms"""
TOKEN = "open-sesame"
SHARE = r"[<>]?\d+\.\d\s%"
REFUSED = re.compile("Failed to load resource: the server responded with a status of 4")
LOST = re.compile("Failed to load resource: net::ERR_")


class Server(NamedTuple):
    """One that answers."""

    folder: Path
    """Of its memory."""
    address: str
    process: subprocess.Popen[str]


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Server]:
    with process(folder, *words) as (started, address):
        yield Server(folder, address, started)


def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return np.round(found.images * 255 / 16).astype(np.uint8), found.target


def png(digit: int, place: int = 0) -> bytes:
    """A picture file of the n-th image of a digit."""
    images, labels = digits()
    return picture(images[labels == digit][place])


def upload(digit: int, place: int = 0, *, name: str | None = None) -> Any:
    return {"name": name or f"{digit}.png", "mimeType": "image/png", "buffer": png(digit, place)}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as started:
        yield started


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of digits, which is asked for no token."""
    images, labels = digits()
    few = labels < CLASSES
    store = ObjectStore(
        inputs=torch.from_numpy(images[few][:150])[:, None],
        labels=torch.from_numpy(labels[few][:150]),
        class_names=tuple(str(digit) for digit in range(CLASSES)),
    )
    folder = tmp_path_factory.mktemp("pictures") / "memory"
    make(folder, store, similarity=Euclidean(scale=30.0, learn_scale=True))
    with serving(folder) as server:
        yield server


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a server's page as a new visitor; nothing may go elsewhere or be complained of that is not expected."""
    opened: list[tuple[Page, browser.Watch, str, re.Pattern[str] | None]] = []

    def open_page(server: Server, view: str = "", *, expect: re.Pattern[str] | None = None, **options: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        page = chromium.new_context(**options).new_page()
        page.set_default_timeout(TIMEOUT)
        opened.append((page, browser.Watch(page), server.address, expect))
        page.goto(f"{server.address}/{view}")
        return page

    yield open_page
    for page, watch, home, expect in opened:
        page.context.close()
        assert watch.elsewhere(home) == []
        assert [each for each in watch.complaints if not (expect and expect.match(each))] == []


def choose(page: Page, *files: Any) -> None:
    page.get_by_label("Choose pictures").set_input_files(list(files))


def answer(page: Page, label: str) -> Locator:
    """The article of the answer that says a class."""
    return page.get_by_role("article").filter(has=page.get_by_role("heading", level=2).filter(has_text=label))


def objects(server: Server) -> int:
    with urllib.request.urlopen(f"{server.address}/info") as reply:
        return int(json.load(reply)["objects"])


def settle(page: Page) -> None:
    """Wait until nothing is asked of the server any more."""
    page.locator("[aria-busy]").first.wait_for(state="detached")


def wait_for_focus(place: Locator) -> None:
    place.and_(place.page.locator(":focus")).wait_for()


def wait_for_news(page: Page, words: str) -> None:
    page.get_by_role("status").filter(has_text=words).wait_for()


def test_a_picture_is_asked_about_by_choice_by_drop_and_by_paste(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures, permissions=["clipboard-read", "clipboard-write"])
    choose(page, upload(STORED))
    shown = answer(page, str(STORED))
    shown.get_by_role("img", name="0.png").wait_for()
    shown.get_by_role("row").filter(has_text=re.compile(rf"^0\s*{SHARE}$")).wait_for()
    shown.get_by_role("button", name=re.compile(rf"^example 0, 0, weight {SHARE}, row 0$")).wait_for()
    for words in ("one example", "Familiar", "Fits its class", "95\u00a0% set"):
        shown.get_by_role("list").filter(has_text=words).wait_for()
    explained = shown.get_by_text("Credibility 0.")
    assert not explained.is_visible()
    shown.get_by_text("Fits its class").click()
    explained.wait_for()

    drop(page, {"dropped.png": png(STORED + 1), "second.png": png(STORED + 2)})
    answer(page, "1").get_by_role("img", name="dropped.png").wait_for()
    answer(page, "2").get_by_role("img", name="second.png").wait_for()
    assert page.get_by_role("article").count() == 2

    paste(page, png(STORED))
    answer(page, str(STORED)).wait_for()
    assert page.get_by_role("article").count() == 1


def drop(page: Page, files: dict[str, bytes]) -> None:
    """Drop files on the page, as from a file manager."""
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, data] of Object.entries(files)) {
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
          }
          return transfer;
        }""",
        {name: base64.b64encode(data).decode() for name, data in files.items()},
    )
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": transfer})


def paste(page: Page, data: bytes) -> None:
    """Copy a picture, and paste it by keyboard."""
    page.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(data).decode(),
    )
    page.keyboard.press("Control+v")


def test_a_new_class_is_taught_answered_and_undone(pictures: Server, visit: Callable[..., Page]) -> None:
    page, before = visit(pictures), objects(pictures)
    choose(page, upload(UNKNOWN))
    shown = page.get_by_role("article")
    taught = shown.get_by_role("group", name="9.png is a …")
    taught.get_by_role("combobox").fill("nine")
    taught.get_by_role("button", name="Teach").click()
    wait_for_news(page, "Taught as nine")
    answer(page, "nine").get_by_role("button", name=re.compile(r", nine, weight .*9\.png")).wait_for()
    page.get_by_text(f"{before + 1} examples of {CLASSES + 1} classes").wait_for()
    answer(page, "nine").get_by_role("button", name="nine", exact=True).wait_for()  # offered from now on

    page.get_by_role("status").get_by_role("button", name="Undo").click()
    wait_for_news(page, "Undone")
    answer(page, "nine").wait_for(state="detached")
    assert objects(pictures) == before


def test_several_pictures_are_taught_at_once(pictures: Server, visit: Callable[..., Page]) -> None:
    page, before = visit(pictures), objects(pictures)
    choose(page, *(upload(UNKNOWN, place, name=f"{place}.png") for place in range(3)))
    together = page.get_by_role("group", name="All 3 are a …")
    together.get_by_role("combobox").fill("nine")
    together.get_by_role("combobox").press("Enter")
    wait_for_news(page, "Taught as nine: 3 examples")
    answer(page, "nine").nth(2).wait_for()
    assert objects(pictures) == before + 3
    page.get_by_role("button", name="Undo last change").click()
    wait_for_news(page, "Undone")
    assert objects(pictures) == before


def test_a_wrong_label_is_mended_by_two_clicks(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures)
    choose(page, upload(STORED))
    answer(page, str(STORED)).get_by_role("button", name=re.compile("^example 0, ")).click()
    dialog = page.get_by_role("dialog", name="Example 0: 0")
    dialog.get_by_role("button", name="3", exact=True).click()
    wait_for_news(page, "Example 0 is now 3")
    assert not dialog.is_visible()
    mended = answer(page, "3").get_by_role("button", name=re.compile("^example 0, 3, "))  # read again
    mended.wait_for()
    wait_for_focus(mended)
    page.keyboard.press("u")
    wait_for_news(page, "the old label is back")
    answer(page, str(STORED)).wait_for()


def test_an_example_is_forgotten_once_that_is_confirmed(pictures: Server, visit: Callable[..., Page]) -> None:
    page, before = visit(pictures, "#examples", expect=REFUSED), objects(pictures)
    page.get_by_label("Class", exact=True).select_option("3")
    page.get_by_role("heading", level=2, name=re.compile(r"^\d+ examples$")).wait_for()
    last = page.get_by_role("button", name=re.compile(r"^example \d+, 3, ")).last
    name = str(last.get_attribute("aria-label"))
    last.click()
    page.get_by_role("dialog").get_by_role("button", name="Forget …").click()
    warned = page.get_by_role("dialog", name="for good")
    warned.get_by_text("cannot be brought back").wait_for()
    warned.get_by_role("button", name="Cancel").click()
    assert objects(pictures) == before
    page.get_by_role("dialog").get_by_role("button", name="Forget …").click()
    warned.get_by_role("button", name="Forget for good").click()
    wait_for_news(page, "is forgotten for good")
    page.get_by_role("button", name=name).wait_for(state="detached")
    assert objects(pictures) == before - 1

    page.get_by_role("link", name="Journal").click()
    page.get_by_role("listitem").filter(has_text="Forgot 1 example for good: 3").first.wait_for()
    page.get_by_role("main").get_by_role("button", name="Undo last change").click()
    page.get_by_role("alert").filter(has_text="the last change").wait_for()


def test_labels_are_gone_through_by_keyboard_alone(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures, "#doubts")
    doubts = page.get_by_role("article", name=re.compile(r"^Example \d+: labelled"))
    doubts.first.wait_for()
    total = doubts.count()
    names = [str(each.get_attribute("aria-label")) for each in doubts.all()]
    assert total >= 4
    for _ in range(40):
        page.keyboard.press("Tab")
        if doubts.first.evaluate("each => document.activeElement === each"):
            break

    page.keyboard.press("Enter")  # takes what the others say
    label = names[0].rsplit(" ", 1)[1]
    doubts.nth(0).get_by_text(f"Changed to {label}").wait_for()
    page.get_by_text(f"1 of {total} seen to").wait_for()
    wait_for_focus(doubts.nth(1))
    page.keyboard.press("u")  # works everywhere
    doubts.nth(0).get_by_role("button", name=f"Change to {label}").wait_for()
    page.get_by_text(f"0 of {total} seen to").wait_for()
    page.keyboard.press("s")
    doubts.nth(1).get_by_text("Kept as").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("ArrowUp")
    wait_for_focus(doubts.nth(2))
    before, dialog = objects(pictures), page.get_by_role("dialog", name="for good")
    page.keyboard.press("Delete")
    dialog.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")  # a browser closes it in its own time, and keys go to it until then
    wait_for_focus(doubts.nth(2))
    page.keyboard.press("d")
    dialog.wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    doubts.nth(2).get_by_text("Forgotten for good").wait_for()
    page.get_by_text(f"2 of {total} seen to").wait_for()
    assert objects(pictures) == before - 1
    wait_for_focus(doubts.nth(3))

    page.get_by_role("button", name="Read all again").click()  # what was kept does not come again
    kept = names[1].split(":")[0]
    page.get_by_text("0 of").wait_for()
    assert page.get_by_role("article", name=re.compile(f"^{kept}:")).count() == 0
    page.get_by_role("button", name="Show 1 kept before").click()
    page.get_by_role("article", name=re.compile(f"^{kept}:")).wait_for()


def test_the_map_shows_what_is_clicked_and_what_the_arrows_reach(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures, "#map")
    canvas = page.get_by_role("application", name="Map of the stored examples")
    beside = page.get_by_role("complementary", name="The example chosen on the map")
    canvas.wait_for()
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    at = page.get_by_text(re.compile(r"^Example \d+, \d$"))
    told = {at.inner_text()}
    for key in ("ArrowLeft", "ArrowUp", "+", "ArrowRight", "Shift+ArrowDown", "0"):
        page.keyboard.press(key)
        told.add(at.inner_text())
    assert len(told) >= 3
    number, label = re.findall(r"\d+", at.inner_text())
    page.keyboard.press("Enter")
    heading = beside.get_by_role("heading", name=f"Example {number}: {label}")
    heading.wait_for()
    assert beside.get_by_role("button", name=re.compile(r"^example \d+, \d, weight")).count() >= 1

    page.get_by_role("button", name="Show all").click()
    box = canvas.bounding_box()
    assert box is not None
    for x, y in ((x, y) for y in range(30, int(box["height"]), 12) for x in range(30, int(box["width"]), 12)):
        page.mouse.move(box["x"] + x, box["y"] + y)
        if canvas.evaluate("each => each.classList.contains('over')"):
            break
    page.mouse.down()
    page.mouse.up()
    heading.wait_for(state="detached")
    beside.get_by_role("heading", name=re.compile(r"^Example \d+: \d")).wait_for()
    beside.get_by_role("button", name="Forget …").wait_for()
    alone = page.get_by_role("button", name=re.compile("^2, "))
    alone.click()
    assert alone.get_attribute("aria-pressed") == "true"


def test_the_main_story_by_keyboard_alone(pictures: Server, visit: Callable[..., Page]) -> None:
    page, before = visit(pictures, expect=REFUSED), objects(pictures)  # the picture of what is taught may be gone again
    page.get_by_text("examples of").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    with page.expect_file_chooser() as chooser:
        tab_to(page, "files")
        page.keyboard.press("Enter")
    chooser.value.set_files(upload(UNKNOWN, 5))
    page.get_by_role("article").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H2"
    tab_to(page, "another class")
    page.keyboard.type("nine")
    page.keyboard.press("Enter")
    wait_for_news(page, "Taught as nine")
    page.keyboard.press("?")  # goes into the field, which is typed in
    assert not page.get_by_role("dialog").is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("u")
    wait_for_news(page, "Undone")
    assert objects(pictures) == before
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Help")
    keys.get_by_text("undo the last change").wait_for()
    keys.get_by_role("checkbox").press("Space")
    page.keyboard.press("Escape")
    page.keyboard.press("3")  # keys of one letter are off
    page.get_by_role("heading", level=1, name="Ask").wait_for()


def tab_to(page: Page, name: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    raise AssertionError(f"no way to {name} by tab")


def focused(page: Page) -> str:
    name = "({ placeholder, id, textContent }) => placeholder || id || textContent"
    return str(page.locator(":focus").evaluate(name))


def test_every_view_fits_a_phone_and_can_be_read(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures, viewport=PHONE, has_touch=True)
    choose(page, upload(STORED), upload(UNKNOWN, name="a" * 80 + ".png"))
    page.get_by_role("article").first.wait_for()
    for view in VIEWS:
        page.get_by_role("link", name=view).click()
        page.get_by_role("heading", level=1, name=view).wait_for()
        settle(page)
        check_looks(page)
    page.get_by_role("link", name="Examples").click()
    page.get_by_role("button", name=re.compile("^example ")).first.click()
    page.get_by_role("dialog", name=re.compile(r"^Example \d+: ")).wait_for()
    check_looks(page)


def check_looks(page: Page) -> None:
    assert page.evaluate(browser.OVERFLOW) <= 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate(browser.LOW_CONTRAST) == [], scheme


def test_a_screen_reader_finds_its_way(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures)
    choose(page, upload(STORED))
    answer(page, str(STORED)).wait_for()
    page.get_by_role("banner").wait_for()
    links = page.get_by_role("navigation", name="Views").get_by_role("link")
    assert links.all_inner_texts() == list(VIEWS)
    assert page.get_by_role("link", name="Ask").get_attribute("aria-current") == "page"
    for view in VIEWS:
        page.get_by_role("link", name=view).click()
        page.get_by_role("heading", level=1, name=view).wait_for()
        assert page.title() == f"{view} - memlab"
        settle(page)
        assert page.get_by_role("heading", level=1).all_inner_texts() == [view]
        told = page.get_by_role("main").aria_snapshot()
        levels = [int(each) for each in re.findall(r"heading .*\[level=(\d)\]", told)]
        assert all(later <= earlier + 1 for earlier, later in zip([1, *levels], levels, strict=False)), view
        unnamed = r"^\s*- (button|link|textbox|combobox|checkbox|img|group|article|progressbar|dialog)\s*:?$"
        assert re.findall(unnamed, page.locator("body").aria_snapshot(), re.M) == [], view


def test_names_are_shown_and_never_run(pictures: Server, visit: Callable[..., Page]) -> None:
    page, before = visit(pictures), objects(pictures)
    choose(page, upload(UNKNOWN, 1, name=ATTACK.replace("/", "") + ".png"))
    field = page.get_by_role("article").get_by_role("combobox")
    field.fill(ATTACK)
    field.press("Enter")
    wait_for_news(page, "Taught as")
    answer(page, ATTACK).get_by_role("heading", level=2).get_by_text(ATTACK).wait_for()
    for view in VIEWS[1:]:
        page.get_by_role("link", name=view).click()
        page.get_by_role("heading", level=1, name=view).wait_for()
        settle(page)
        assert page.locator("main img[src=x], main script").count() == 0
    page.get_by_role("listitem").filter(has_text=ATTACK).first.wait_for()  # in the journal
    page.get_by_role("banner").get_by_role("button", name="Undo last change").click()
    wait_for_news(page, "Undone")
    assert objects(pictures) == before


def test_what_cannot_be_read_is_told_beside_what_can(pictures: Server, visit: Callable[..., Page]) -> None:
    page = visit(pictures, expect=REFUSED)
    choose(page, upload(STORED), {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture at all"})
    answer(page, str(STORED)).wait_for()
    refused = page.get_by_role("article", name="notes.png").get_by_role("alert")
    assert "notes.png" in refused.inner_text()


def test_rows_of_numbers_are_taught_with_a_token_until_the_server_is_gone(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    folder = tmp_path / "memory"
    make(folder, tables())
    with serving(folder, "--token", TOKEN) as server:
        page = visit(server, expect=re.compile(f"{REFUSED.pattern}|{LOST.pattern}"))
        check_rows(page)
        check_token(page)
        assert "dog" in load(folder).classes
        server.process.kill()
        page.get_by_role("link", name="Map").click()
        told = page.get_by_role("alert").filter(has_text="Is memlab serve still running?")
        told.wait_for()
        with serving(folder, "--token", TOKEN, "--port", server.address.rpartition(":")[2]):
            told.wait_for(state="hidden")
            page.get_by_role("application").wait_for()
            page.get_by_role("button", name=re.compile("^dog, 1")).wait_for()


def test_rows_of_a_table_are_asked_by_name_or_in_order(visit: Callable[..., Page], tmp_path: Path) -> None:
    pytest.importorskip("polars")
    folder = tmp_path / "memory"
    make(folder, columned())
    with serving(folder) as server:
        page = visit(server)
        rows = page.get_by_label("Rows of a table")
        rows.fill("0.3, red")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("alert").filter(has_text="Row 1: has 2 cells; must have 3.").wait_for()
        rows.fill("tame;size;colour\nyes;10.5;red\n;20;green")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("article").nth(1).wait_for()
        expected = load(folder).predict([[10.5, "red", "yes"], [20, "green", None]])
        for place, label in enumerate(expected.labels):
            page.get_by_role("article").nth(place).get_by_role("heading", level=2).get_by_text(label).wait_for()
        page.context.close()


def test_texts_are_asked_and_taught_and_stand_as_evidence(visit: Callable[..., Page], tmp_path: Path) -> None:
    make(tmp_path / "texts", spoken())
    make(tmp_path / "pairs", spoken(pairs=True))
    with serving(tmp_path / "texts") as server:
        page = visit(server)
        texts = page.get_by_label("Texts", exact=True)
        texts.fill("The bear sleeps\n\nOne cat purrs")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("heading", level=2).get_by_text("cat").wait_for()
        assert page.get_by_role("article").count() == 2
        taught = page.get_by_role("group", name="The bear sleeps is a …")
        taught.get_by_role("combobox").fill("dog")
        taught.get_by_role("button", name="Teach").click()
        wait_for_news(page, "Taught as dog")
        page.get_by_text('"The bear sleeps"').first.wait_for()
        page.context.close()  # before the server that it asks
    assert "dog" in load(tmp_path / "texts").classes
    with serving(tmp_path / "pairs") as server:
        page = visit(server)
        texts = page.get_by_label("Pairs of texts")
        texts.fill("The bear sleeps")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("alert").filter(has_text="Line 1: has 1 text; must have two").wait_for()
        texts.fill("The bear sleeps | as we saw")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("article").first.get_by_role("heading", level=2).get_by_text("bear").wait_for()
        page.context.close()


def check_rows(page: Page) -> None:
    rows = page.get_by_label("Rows of numbers")
    rows.fill("1, 2, 3\n")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").filter(has_text="Line 1: has 3 numbers; must have 5.").wait_for()
    rows.fill("9;9;9;9;9\n\n2 0 0 0 -1e0")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("article").nth(1).wait_for()
    assert page.get_by_role("article").count() == 2


def check_token(page: Page) -> None:
    taught = page.get_by_role("group", name="row 1 is a …")
    taught.get_by_role("combobox").fill("dog")
    taught.get_by_role("button", name="Teach").click()
    asked = page.get_by_role("dialog", name="Token")
    asked.get_by_label("Token").fill("wrong")
    asked.get_by_role("button", name="Use it").click()
    page.get_by_role("alert").filter(has_text="token").wait_for()
    page.get_by_role("button", name="Token").click()
    asked.get_by_label("Token").fill(TOKEN)
    asked.get_by_label("Token").press("Enter")
    taught.get_by_role("button", name="Teach").click()
    wait_for_news(page, "Taught as dog")
    page.get_by_text("Taught as dog, and outvoted").wait_for()  # by the many that are near
    kept = page.evaluate("() => [Object.values(sessionStorage), localStorage.length, document.cookie]")
    assert kept == [[TOKEN], 0, ""]
