"""Pages that are opened from the disk in a real browser, Debian's chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Opened = Callable[..., Any]


@pytest.fixture(scope="module")
def open_page() -> Iterator[Opened]:
    """Open a file as a page of some width; what it says on the console or asks of others fails at the end."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("there is no chromium")
    complaints: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=list(FLAGS))

        def opened(file: Path, *, width: int = 1280, **options: Any) -> Any:
            page = browser.new_context(viewport={"width": width, "height": 800}, **options).new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith("data:image/") or request.url == file.as_uri()
                    else complaints.append(request.url)
                ),
            )
            page.goto(file.as_uri())
            return page

        yield opened
        browser.close()
    assert not complaints
