"""A real browser, driven by playwright; tests that need it are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""Pixels that a page is wider than its window."""
LOW_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba("Canvas");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const [words, holder] = [walker.currentNode.data.trim(), walker.currentNode.parentElement];
    if (!words || !holder.checkVisibility() || holder.closest("noscript, option")) continue;
    const [one, other] = [rgba(getComputedStyle(holder).color), ground(holder)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)} ${holder.tagName} ${words.slice(0, 40)}`);
  }
  return found;
}"""
"""Texts whose contrast is below that of WCAG AA."""


Opened = Callable[..., Any]


@contextmanager
def started() -> Iterator[Browser]:
    """Chromium without a window, with a profile of its own that is thrown away."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Watch:
    """What a page has fetched and complained about."""

    def __init__(self, page: Page) -> None:
        self.addresses: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.addresses.append(request.url))
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dialog)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def elsewhere(self, home: str) -> list[str]:
        """Addresses that are neither below home nor within the page."""
        return [each for each in self.addresses if not each.startswith((home, "blob:", "data:"))]


@pytest.fixture(scope="module")
def open_page() -> Iterator[Opened]:
    """Open a file as a page of some width; that it complains or asks for anything else is seen at the end."""
    watched: list[tuple[Watch, str]] = []
    with started() as browser:

        def opened(file: Path, *, width: int = 1280, **options: Any) -> Page:
            page = browser.new_context(viewport={"width": width, "height": 800}, **options).new_page()
            watched.append((Watch(page), file.as_uri()))
            page.goto(file.as_uri())
            return page

        yield opened
    for watch, home in watched:
        assert watch.complaints == []
        assert watch.elsewhere(home) == []
