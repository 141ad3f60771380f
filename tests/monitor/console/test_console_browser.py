"""The console's page in a real browser: many cameras, one camera, both themes, desktop and phone."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sagelink.monitor.console.console_view import ConsoleView
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.console.routes import console_app
from sagelink.net.access_guard import Tokens
from sagelink.net.http import serve_http
from sagelink.transport.link import Message
from sagelink.transport.picture_parts import PicturePart
from sagelink.transport.reply_message import encode_reply
from tests.browsers import chromium, wait_for
from tests.fakes import make_evidence, make_reply
from tests.monitor.console.conftest import DOOR, INFO, LORRY
from tests.patience import PATIENCE_MS, PATIENCE_S

EVIL = 'south/<img src=x onerror="document.title=1">\x1b[31m'


class ServedConsole:
    """A console in a thread of its own, because the browser's client uses this thread's event loop."""

    def __init__(self, view: ConsoleView) -> None:
        self.view = view
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._address: queue.Queue[tuple[str, int]] = queue.Queue()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        self.url = "http://{}:{}/".format(*self._address.get(timeout=PATIENCE_S))

    async def _serve(self) -> None:
        async with serve_http(console_app(self.view, Tokens()), "127.0.0.1", 0) as listening:
            self._address.put(listening)
            await self._over.wait()

    def do(self, change: Any, *arguments: Any) -> None:
        """Calls a function in the console's event loop."""
        self._loop.call_soon_threadsafe(change, *arguments)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()


def fill(fleet: Fleet) -> None:
    """300 cameras, one of them stalled, two offline, with answers and events."""
    now_s = time.monotonic()
    for number in range(300):
        camera = f"site-{number % 40:02d}/camera-{number:04d}"
        fleet.online(camera, INFO, now_s)
        for seq in range(3):
            fleet.evidence(Message(camera, make_evidence(seq).message, now_s), 7000 + number)
            fleet.reply(camera, encode_reply(make_reply(seq)), now_s + 0.1)
    fleet.evidence(Message("site-07/camera-0007", make_evidence(9).message, now_s - 60), 8000)
    fleet.offline("site-11/camera-0011", "the connection was lost", now_s - 4000)
    fleet.event("site-12/camera-0012", LORRY, 900, now_s)
    add_picture(fleet)
    fleet.digest(DOOR, {"n": 9, "q": ["month", 3_600_000_000, 4_000_000_000]}, 3000, now_s)
    fleet.online("browser 1", INFO, now_s)
    fleet.online(EVIL, INFO, now_s)
    fleet.event(EVIL, LORRY | {"label": EVIL, "rule": EVIL}, 900, now_s)


def add_picture(fleet: Fleet) -> None:
    """The picture of the open event."""
    file = io.BytesIO()
    shades = np.linspace(40, 220, 160 * 100 * 3, dtype=np.uint8).reshape(100, 160, 3)
    Image.fromarray(shades).save(file, "AVIF")
    data = file.getvalue()
    for at in range(0, len(data), 900):
        part = PicturePart(str(LORRY["id"]), len(data), at, data[at : at + 900])
        fleet.picture(DOOR, part, 8000, time.monotonic())


@pytest.fixture
def served(view) -> Iterator[ServedConsole]:
    fill(view.fleet)
    served = ServedConsole(view)
    yield served
    served.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, served) -> Iterator[Any]:
    """A page; the test fails for errors on its console."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served.url)
    page.wait_for_selector(".fleet-row[href]")
    yield page
    page.close()
    assert errors == []


def names(page: Any) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.fleet-row:not([hidden]) .name')].map(cell => cell.textContent)"
    )


def test_trouble_first_filters_and_a_list_that_scrolls(page):
    assert names(page)[:2] == ["site-07/camera-0007", "site-11/camera-0011"]
    assert page.inner_text("#cameras-all") == "304"
    assert len(names(page)) < 60
    height = page.evaluate("document.getElementById('list').clientHeight")
    assert height == 304 * 44
    page.select_option("#sort", "name")
    page.evaluate("scrollTo(0, 1e9)")
    wait_for(
        page, "[...document.querySelectorAll('.fleet-row .name')].some(cell => cell.textContent.startsWith('south'))"
    )
    assert len(names(page)) < 60
    page.evaluate("scrollTo(0, 0)")
    page.fill("#text", "camera-0299")
    wait_for(page, "document.querySelectorAll('.fleet-row:not([hidden])').length === 1")
    page.fill("#text", "no such camera")
    page.wait_for_selector("#nothing:not([hidden])")
    page.fill("#text", "")
    page.click("[data-state='events']")
    wait_for(page, "document.querySelectorAll('.fleet-row:not([hidden])').length === 3")
    assert page.evaluate("document.title") == "Sagelink console"
    assert any("\\x1b[31m" in cell for cell in page.locator(".fleet-row .events").all_inner_texts())


def test_a_change_at_a_camera_is_shown(page, served):
    page.fill("#text", DOOR)
    wait_for(page, "document.querySelectorAll('.fleet-row:not([hidden])').length === 1")
    now_s = time.monotonic()
    served.do(served.view.fleet.offline, DOOR, "the connection was lost", now_s)
    wait_for(page, "document.querySelector('.fleet-row .seen').textContent.startsWith('offline')")
    served.do(served.view.fleet.online, DOOR, INFO, now_s)
    wait_for(page, "document.querySelector('.fleet-row').dataset.state === 'running'")


def test_a_camera_shows_its_evidence_and_keeps_up(page, served):
    page.fill("#text", DOOR)
    wait_for(page, "document.querySelectorAll('.fleet-row:not([hidden])').length === 1")
    page.click(".fleet-row")
    page.wait_for_selector("#picture[data-seq='7']")
    assert "3 of 16 units" in page.inner_text("#picture-caption")
    opaque = """() => {
        const canvas = document.getElementById('picture');
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.filter((value, place) => place % 4 === 3 && value === 255).length / (canvas.width * canvas.height);
    }"""
    page.uncheck("#outline")
    assert page.evaluate(opaque) == pytest.approx(3 / 16, abs=1e-3)
    assert page.inner_text("#timeline li b") == "lorry"
    wait_for(page, "document.querySelector('#timeline .picture img')?.naturalWidth === 160")
    assert page.inner_text("#one-month-of") == "of 500 MB, 90 % used"
    assert page.locator("#answers tr").count() == 1
    assert page.locator("#minutes canvas").count() == 1
    served.do(served.view.fleet.evidence, Message(DOOR, make_evidence(8).message, time.monotonic()), 9000)
    page.wait_for_selector("#picture[data-seq='8']")
    page.go_back()
    page.wait_for_selector(".fleet-row[href]")
    page.goto(f"{served.url}#/browser%201")
    wait_for(page, "document.getElementById('camera-state').textContent === 'running'")
    page.goto(f"{served.url}#/north/none")
    wait_for(page, "document.getElementById('camera-why').textContent === 'This broker knows no such camera.'")


def test_a_console_without_its_broker_says_so(browser, view):
    served = ServedConsole(replace(view, trouble=lambda: "mqtt://broker:1883: the connection broke off"))
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("#notice:not([hidden])")
    assert "the connection broke off" in page.inner_text("#notice")
    assert page.inner_text("#connection") == "trouble"
    page.close()
    served.end()


_DOT = "getComputedStyle(document.querySelector('{}'), '::before').backgroundColor"


@pytest.mark.parametrize(("path", "dot"), [("", ".fleet-row .name"), (f"#/{DOOR}", "#camera-state")])
def test_without_a_connection_no_camera_looks_as_if_it_ran(browser, served, path, dot):
    page = browser.new_page()
    page.goto(f"{served.url}{path}")
    page.wait_for_selector(".fleet-row[href]" if not path else "#picture[data-seq]")
    running = page.evaluate(_DOT.format(dot))
    page.evaluate("document.body.classList.add('stale')")  # as `console.js` does when the connection is lost
    assert page.evaluate(_DOT.format(dot)) != running
    page.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 401, "body": "a token is needed", "content_type": "text/plain"}, "you are not logged in"),
        ({"status": 429, "body": "too many", "content_type": "text/plain"}, "too many wrong tokens: wait"),
        ({"status": 400, "body": '{"error": "no such rate"}', "content_type": "application/json"}, "no such rate"),
        (None, "no connection"),
    ],
)
def test_a_change_that_is_refused_says_why(browser, served, answer, words):
    page = browser.new_page()
    page.route("**/change", lambda route: route.fulfill(**answer) if answer else route.abort())
    page.goto(f"{served.url}#/{DOOR}")
    page.wait_for_selector("#picture[data-seq]")
    page.click("#budget button")
    wait_for(page, f"document.getElementById('change-said').textContent === {words!r}")
    page.close()


def test_the_page_fits_its_window(browser, served, tmp_path):
    artefacts = Path(os.environ.get("SAGELINK_ARTEFACTS", tmp_path))
    for name, width, height, theme in (("desktop", 1280, 900, "light"), ("phone", 390, 844, "dark")):
        check_fit(browser, served, artefacts, name, width, height, theme)


def check_fit(browser, served, artefacts, name, width, height, theme):
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    page.goto(served.url)
    page.wait_for_selector(".fleet-row[href]")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=artefacts / f"console-fleet-{name}-{theme}.png")
    page.goto(f"{served.url}#/{DOOR}")
    page.wait_for_selector("#picture[data-seq]")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=artefacts / f"console-camera-{name}-{theme}.png", full_page=True)
    page.close()
