"""Chromium for tests, controlled by Playwright."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import skip_or_fail
from tests.patience import PATIENCE_S

CHROMIUM = Path("/usr/bin/chromium")


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Any]:
    """Starts the browser; skips the test when Chromium is not installed."""
    if not CHROMIUM.exists():
        skip_or_fail("chromium", f"no {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", *options])
        yield browser
        browser.close()


def wait_for(page: Any, condition: str) -> None:
    """Waits until a JavaScript condition is true. The page's policy forbids eval, which Playwright's own wait uses."""
    deadline = time.monotonic() + PATIENCE_S
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"not true within {PATIENCE_S} s: {condition}"
        page.wait_for_timeout(50)
