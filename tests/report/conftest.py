"""A browser that tells of every error and every request beyond files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

#: Chromium as it must be asked not to speak to anyone.
_QUIET = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WAIT_MS = 20_000


@dataclass
class Watched:
    """A page, and what went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Keep errors and warnings of the console."""
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def refuse(self, dialog: Dialog) -> None:
        """Keep what a dialog says: the page opens none."""
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def follow(self, request: Request) -> None:
        """Keep requests that go beyond the files of this machine."""
        if request.url.split(":")[0] not in ("file", "data", "blob", "about"):
            self.beyond.append(request.url)

    def open(self, path: Path, part: str = "") -> Page:
        """Open a file, and wait until its script has begun."""
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + part)
        self.page.wait_for_selector("html[data-ready]")
        return self.page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of this machine."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        # Where nobody looks at what was left out, a page that was opened in no browser must not pass.
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine")
        pytest.skip("no Chromium on this machine")
    # A machine that others share answers late; what is wrong stays wrong however long it is waited for.
    expect.set_options(timeout=_WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_QUIET))
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A fresh page in a context of its own; the test fails where the console told of an error or the net was asked."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    context.set_default_timeout(4 * _WAIT_MS)
    found = Watched(context.new_page())
    found.page.on("console", found.hear)
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("dialog", found.refuse)
    found.page.on("request", found.follow)
    yield found
    context.close()
    assert found.errors == []
    assert found.beyond == []
