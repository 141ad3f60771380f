"""The page in a real browser, served by a real run in a process of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image, ImageColor

from bench.ports import free_port
from sagelink.monitor.dashboard.routes import dashboard_app
from sagelink.net.http import serve_http
from tests.browsers import chromium, wait_for
from tests.monitor.dashboard.test_routes import TOKEN
from tests.patience import PATIENCE_MS, PATIENCE_S
from tests.processes import Sagelink


class Server:
    """`sagelink run` with a dashboard, which can be ended and begun again."""

    def __init__(self, out: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.out = out
        self._process: Sagelink | None = None

    def begin(self) -> None:
        self._process = Sagelink(
            *("run", "synthetic:100000,fps=5,size=320x240", "--realtime", "--models", "demo", "--gate", "always"),
            *("--uplink", "96kbit/s", "--units", "40", "--out", self.out),
            *("--dashboard-address", f"127.0.0.1:{self.port}"),
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urlopen(f"{self.url}readyz"):  # noqa: S310
                    return
            except OSError:
                assert time.monotonic() < deadline, f"the run does not get ready: {self._process.output}"
                time.sleep(0.2)

    def end(self) -> int:
        assert self._process is not None
        self._process.interrupt()
        return self._process.ended()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    def stats(self) -> dict[str, Any]:
        with urlopen(f"{self.url}api/stats") as answer:  # noqa: S310
            return json.load(answer)


def budget_levels(page: Any) -> int:
    """Number of heights of the budget line in the chart: groups of rows with five or more pixels of its colour."""
    colour = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--limit').trim()")
    pixels = np.array(Image.open(io.BytesIO(page.locator("#chart").screenshot())).convert("RGB"), int)
    near = np.abs(pixels - ImageColor.getrgb(colour)).sum(-1) < 60
    rows = near.sum(1) >= 5
    return int((rows[1:] & ~rows[:-1]).sum())


def wait_for_levels(page: Any, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (levels := budget_levels(page)) != count:
        assert time.monotonic() < deadline, f"{levels} levels of the budget in the chart, not {count}"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("run"))
    server.begin()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def artefacts(tmp_path) -> Path:
    """Folder for screenshots of the page."""
    folder = Path(os.environ.get("SAGELINK_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def guarded_url(watched, coder) -> Iterator[str]:
    """A page that requires TOKEN, served in a thread, because the browser's client uses this thread's event loop."""
    address: queue.Queue[tuple[str, int]] = queue.Queue()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with serve_http(dashboard_app(watched, coder, TOKEN), "127.0.0.1", 0) as listening:
            address.put(listening)
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    yield "http://{}:{}/".format(*address.get(timeout=PATIENCE_S))
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.fixture
def page(browser, server) -> Iterator[Any]:
    """A page; the test fails for errors on its console, except lost connections, refused requests and pictures of
    events that were withdrawn while the page asked for them."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    console_errors: list[str] = []

    def note(message: Any) -> None:
        if message.type in ("error", "warning") and "/api/events/" not in message.location["url"]:
            console_errors.append(f"{message.text} {message.location['url']}")

    page.on("console", note)
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("#rows tr")
    yield page
    page.close()
    expected = ("WebSocket connection", "status of 400", "ERR_CONNECTION_REFUSED")
    assert [text for text in console_errors if not any(part in text for part in expected)] == []


def test_pictures_rows_and_chart_are_updated_and_a_row_opens_what_the_server_received(page):
    shown = "Number(document.querySelector('.camera-tile canvas').dataset.n)"
    wait_for(page, f"{shown} >= 0")
    before = page.evaluate(f"({{n: {shown}, row: Number(document.querySelector('#rows tr').dataset.n)}})")
    wait_for(page, f"{shown} > {before['n']} + 2")
    wait_for(page, f"Number(document.querySelector('#rows tr').dataset.n) > {before['row']} + 2")
    painted = """() => {
        const canvas = document.querySelector('#chart canvas');
        return new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size;
    }"""
    assert page.evaluate(painted) > 10
    assert page.inner_text("#connection") == "live"
    assert "96 kbit/s" in page.inner_text("#of-budget")
    assert page.locator("#drops li").count() >= 1
    assert page.locator("#stages li").count() == 7

    # A paused table does not change, and a filter applies.
    page.click("#pause")
    first = page.get_attribute("#rows tr", "data-n")
    shown = page.evaluate("Number(document.querySelector('.camera-tile canvas').dataset.n)")
    wait_for(page, f"Number(document.querySelector('.camera-tile canvas').dataset.n) > {shown} + 4")
    assert page.get_attribute("#rows tr", "data-n") == first
    page.select_option("#filter", "sent")
    page.click("#pause")
    wait_for(page, f"Number(document.querySelector('#rows tr').dataset.n) > {first}")
    units = page.evaluate("[...document.querySelectorAll('#rows tr')].map(row => row.cells[6].textContent)")
    assert units
    assert all(count.isdecimal() for count in units)

    # A row opens the frame as the server received it.
    page.locator("#rows tr").first.click()
    page.wait_for_selector("dialog[open][data-n]")
    assert "of 196 units" in page.inner_text("#received-caption")
    opaque = """() => {
        const canvas = document.getElementById('received');
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.filter((value, place) => place % 4 === 3 && value === 255).length / (canvas.width * canvas.height);
    }"""
    units = int(page.inner_text("#received-caption").split(":")[1].split()[0])
    assert page.evaluate(opaque) == pytest.approx(units / 196, abs=1e-3)
    n = page.get_attribute("dialog", "data-n")
    page.keyboard.press("ArrowLeft")
    wait_for(page, f"document.querySelector('dialog').dataset.n < {n}")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.click("#pause")
    page.locator("#rows button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")


def test_a_budget_set_on_the_page_changes_the_ledger(page, server):
    wait_for_levels(page, 1)
    page.fill("#uplink", "fast")
    page.click("#budget button >> nth=0")
    wait_for(page, "document.getElementById('budget-error').textContent.includes('a rate is written like')")
    page.fill("#uplink", "48kbit/s")
    page.click("#budget button >> nth=0")
    wait_for(page, "document.getElementById('of-budget').textContent.includes('48 kbit/s')")
    assert page.inner_text("#budget-error") == ""
    assert server.stats()["control"]["rate_bps"] == 48_000
    page.click("[data-times='2']")
    wait_for(page, "document.getElementById('of-budget').textContent.includes('96 kbit/s')")
    page.select_option("#policy", "never")
    page.click("#gate button")
    wait_for(page, "document.getElementById('gate-now').textContent.startsWith('never')")
    page.select_option("#policy", "always")
    page.click("#gate button")
    wait_for(page, "document.getElementById('gate-now').textContent.startsWith('always')")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        lines = [json.loads(line) for line in (server.out / "results.jsonl").read_text().splitlines()[:-1]]
        if {48_000, 96_000} <= {line["budget_bits"] for line in lines} and lines[-1]["budget_bits"] == 96_000:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert all(line["window_bits"] <= line["budget_bits"] for line in lines if line["sent_s"] is not None)
    wait_for_levels(page, 2)


def test_a_label_under_the_picture_writes_the_full_frame(page, server):
    labels = server.out / "labels"
    page.fill(".class-bar input", "gate-open")
    wait_for(page, "document.querySelector('.camera-tile').classList.contains('frozen')")  # while somebody chooses
    page.keyboard.press("Enter")
    page.wait_for_selector("#toast:not([hidden])")
    wait_for(page, "!document.querySelector('.camera-tile').classList.contains('frozen')")
    (picture,) = (labels / "gate-open").iterdir()
    with Image.open(picture) as image:
        assert image.size == (320, 240)
    seq = int(picture.stem.rpartition("_")[2])
    wait_for(page, f"document.querySelector('#rows tr[data-seq=\"{seq}\"] span.chip')?.textContent === 'gate-open'")
    page.click("#toast button")
    wait_for(page, "document.querySelector('#toast').textContent.startsWith('Took gate-open back')")
    assert not (labels / "gate-open").exists()
    page.click("#pause")
    page.locator("#rows button.chip").first.click()
    wait_for(page, "document.querySelector('#rows span.chip') !== null")
    page.click("h1")
    page.keyboard.press("u")
    wait_for(page, "document.querySelector('#rows span.chip') === null")


def test_a_token_is_required(browser, guarded_url):
    page = browser.new_page()
    page.goto(guarded_url)
    page.fill("input", "a-wrong-token-of-some-length")
    page.click("button")
    page.wait_for_selector("text=This token is wrong.")
    page.fill("input", TOKEN)
    page.click("button")
    page.wait_for_selector("#rows tr")
    page.close()


def test_pictures_grow_old_when_no_new_ones_come(browser, guarded_url):
    """The run behind this page has three frames, and no more."""
    page = browser.new_page()
    page.goto(guarded_url)
    page.fill("input", TOKEN)
    page.click("button")
    wait_for(page, "/^\\d+ s old$/.test(document.querySelector('.camera-tile.old .age')?.textContent)")
    wait_for(page, "document.getElementById('connection').textContent.startsWith('no picture for')")
    assert "good" not in page.get_attribute("#connection", "class")
    assert "good" not in page.get_attribute("#link", "class")
    wait_for(page, "document.getElementById('drops').innerText.includes('2 of 2')")
    page.close()


def test_a_run_that_hangs_is_not_live(page, server):
    wait_for(page, "document.getElementById('connection').textContent === 'live'")
    wait_for(page, "document.getElementById('link').textContent === 'link up'")
    server.send(signal.SIGSTOP)
    wait_for(page, "document.getElementById('connection').textContent.startsWith('no data for')")
    wait_for(page, "document.querySelector('.camera-tile.old .age')?.textContent.endsWith('s old')")
    assert page.evaluate("document.body.classList.contains('stale')")
    assert not page.is_visible("#link")
    server.send(signal.SIGCONT)
    wait_for(page, "document.getElementById('connection').textContent === 'live'")
    wait_for(page, "!document.querySelector('.camera-tile.old')")
    assert not page.evaluate("document.body.classList.contains('stale')")


@pytest.mark.parametrize(
    ("name", "width", "height", "theme"), [("desktop", 1280, 900, "light"), ("phone", 390, 844, "dark")]
)
def test_the_page_fits_its_window(browser, server, artefacts, name, width, height, theme):
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    page.goto(server.url)
    page.wait_for_selector(".camera-tile .label:not(:empty)")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=artefacts / f"dashboard-{name}-{theme}.png", full_page=True)
    page.select_option("#filter", "sent")
    page.locator("#rows tr").first.click()
    page.wait_for_selector("dialog[open][data-n]")
    page.screenshot(path=artefacts / f"evidence-{name}-{theme}.png")
    page.close()


@pytest.mark.campaign
def test_the_page_reconnects_when_the_run_starts_again(page, server):
    assert server.end() == 0
    wait_for(page, "document.getElementById('connection').textContent === 'run ended'")
    assert page.evaluate("document.body.classList.contains('stale')")
    server.begin()
    wait_for(page, "document.getElementById('connection').textContent === 'live'")
    assert not page.evaluate("document.body.classList.contains('stale')")
    wait_for(page, "Number(document.querySelector('#rows tr')?.dataset.n ?? 1e9) < 200")
