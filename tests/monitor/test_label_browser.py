"""The labels of the dashboard and the labelling page in a real browser, over frames that do not change."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sagelink.monitor.dashboard.routes import dashboard_app
from sagelink.monitor.labelling.desk import LabelDesk
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.folder import FrameKey, LabelFolder
from sagelink.monitor.labelling.recent_frames import RecentFrames
from sagelink.net.http import serve_http
from tests.browsers import chromium, wait_for
from tests.monitor.dashboard.test_verdict_feed import LABELS, verdict_of
from tests.monitor.labelling.test_recent_frames import with_further
from tests.monitor.labelling.test_routes import FakeTeacher
from tests.patience import PATIENCE_MS, PATIENCE_S

HOSTILE = "<img src=x onerror=alert(1)>"


class PageTeacher(FakeTeacher):
    """Shows the state that a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        return super().state() | self.shown


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def artefacts(tmp_path) -> Path:
    folder = Path(os.environ.get("SAGELINK_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def recent() -> RecentFrames:
    """Six sampled frames."""
    now = [0.0]
    recent = RecentFrames(lambda _: LABELS, clock_s=lambda: now[0])
    for seq in range(6):
        now[0] += 1
        recent.sample([verdict_of(seq)])
    return recent


@pytest.fixture
def desk(tmp_path, recent) -> Iterator[LabelDesk]:
    folder = LabelFolder(tmp_path / "labels", "s")
    desk = LabelDesk(recent.view(), folder, lambda: ("gate-open", "gate-shut"), PageTeacher())
    yield desk
    desk.close()


@pytest.fixture
def serve(watched, coder, recent) -> Iterator[Callable[..., str]]:
    """Serves a dashboard with labels in a thread; returns its address."""
    ends: list[Callable[[], None]] = []

    def begin(desk: LabelDesk, further: Mapping[str, LabelDesk] | None = None) -> str:
        desks = LabelDesks(desk, further)
        address: queue.Queue[tuple[str, int]] = queue.Queue()
        loop, over = asyncio.new_event_loop(), asyncio.Event()
        app = dashboard_app(replace(watched, labels=desks, recent=recent), coder, None)

        async def serve() -> None:
            async with serve_http(app, "127.0.0.1", 0) as listening:
                address.put(listening)
                await over.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()

        def end() -> None:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()

        ends.append(end)
        return "http://{}:{}/".format(*address.get(timeout=PATIENCE_S))

    yield begin
    for end in ends:
        end()


def open_page(browser: Any, url: str, width: int = 1280, height: int = 900, theme: str = "light") -> Any:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.goto(url)
    page.errors = errors
    return page


def test_labelling_with_the_keyboard_alone(browser, serve, desk):
    page = open_page(browser, serve(desk) + "label")
    page.wait_for_selector("#picture:not([hidden])")
    page.keyboard.press("1")
    wait_for(page, "document.getElementById('said').textContent === 'labelled gate-open'")
    page.keyboard.press("2")
    wait_for(page, "document.getElementById('said').textContent === 'labelled gate-shut'")
    page.keyboard.press("n")
    page.keyboard.type("van 1")  # the digit belongs to the name
    page.keyboard.press("Enter")
    wait_for(page, "document.getElementById('said').textContent === 'labelled van 1'")
    assert desk.folder.counts() == {"gate-open": 1, "gate-shut": 1, "van 1": 1}
    page.keyboard.press("u")
    wait_for(page, "document.getElementById('said').textContent === 'took van 1 back'")
    page.keyboard.press("s")
    wait_for(page, "document.getElementById('said').textContent === 'skipped'")
    assert desk.folder.counts() == {"gate-open": 1, "gate-shut": 1, "van 1": 0}
    while (left := page.locator("#queue li").count()) > 1:
        page.keyboard.press("s")
        wait_for(page, f"document.querySelectorAll('#queue li').length < {left}")
    assert page.errors == []
    page.close()


def test_a_state_that_arrives_late_does_not_replace_a_newer_one(browser, serve, desk):
    page = open_page(browser, serve(desk) + "label")
    page.wait_for_selector("#picture:not([hidden])")
    late: list[tuple[Any, Any]] = []
    page.route("**/api/labels", lambda route: late.append((route, route.fetch())) if not late else route.continue_())
    while not late:
        page.wait_for_timeout(20)
    page.keyboard.press("1")
    wait_for(page, "document.getElementById('said').textContent === 'labelled gate-open'")
    ((route, answer),) = late
    with page.expect_event("requestfinished", lambda request: request.method == "GET" and "labels" in request.url):
        route.fulfill(response=answer)
    page.wait_for_timeout(100)
    assert page.is_enabled("#undo")
    page.keyboard.press("u")
    wait_for(page, "document.getElementById('said').textContent === 'took gate-open back'")
    page.close()


@pytest.mark.campaign
def test_the_head_that_labels_are_for_is_chosen(browser, serve, desk, recent, tmp_path, artefacts):
    folder = LabelFolder(tmp_path / "labels-light", "s")
    light = LabelDesk(recent.view("light"), folder, lambda: ("day", "night"), PageTeacher())
    recent.keep(with_further(verdict_of(9)))
    url = serve(desk, {"light": light})
    page = open_page(browser, url)
    page.wait_for_selector(".camera-tile .class-bar button[data-name=gate-open]")
    page.select_option("#heads select", "light")
    page.wait_for_selector(".camera-tile .class-bar button[data-name=night]")
    assert page.locator("button[data-name=gate-open]").count() == 0
    page.locator("#classes").screenshot(path=artefacts / "heads-dashboard.png")
    page.goto(url.removesuffix("/") + page.get_attribute("#to-label", "href"))
    page.wait_for_selector("#bar button[data-name=night]")
    page.screenshot(path=artefacts / "heads-label.png")
    page.select_option("#heads select", "")
    page.wait_for_selector("#bar button[data-name=gate-shut]")
    page.wait_for_selector("#picture:not([hidden])")
    page.keyboard.press("2")
    wait_for(page, "document.getElementById('said').textContent === 'labelled gate-shut'")
    assert (desk.folder.counts(), light.folder.counts()) == ({"gate-shut": 1}, {})
    page.goto(f"{url}label?head=gone")  # such as of an earlier run: the page returns to the first head
    page.wait_for_selector("#bar button[data-name=gate-shut]")
    assert page.errors == []
    page.close()
    light.close()


def test_a_refused_name_gives_the_reason_and_html_stays_text(browser, serve, desk):
    desk.folder.label(FrameKey("camera", 0), "a & b", "m", b"x")
    page = open_page(browser, serve(desk) + "label")
    page.wait_for_selector("#picture:not([hidden])")
    for name, reason in ((HOSTILE, "contains '<'"), ("a/b", "contains '/'"), ("GATE-OPEN", "too alike")):
        page.fill("#bar input", name)
        page.keyboard.press("Enter")
        wait_for(page, f"document.querySelector('#bar .error').textContent.includes({reason!r})")
        assert page.input_value("#bar input") == name  # what was typed can be mended
    assert "a & b" in page.inner_text("#bar")
    assert page.errors == []
    page.close()


def test_without_a_folder_the_page_says_why_and_shows_no_buttons(browser, serve, recent, artefacts):
    closed = LabelDesk(
        recent.view(), None, lambda: (), None, closed="no folder for labelled pictures: set labels.folder"
    )
    url = serve(closed)
    page = open_page(browser, url)
    page.wait_for_selector("#labels-closed:not([hidden])")
    assert "set labels.folder" in page.inner_text("#labels-closed")
    assert not page.is_visible(".class-bar")
    assert not page.is_visible("#classes")
    assert not page.is_visible("th.labels")
    page.screenshot(path=artefacts / "dashboard-closed.png")
    page.goto(url + "label")
    wait_for(page, "document.getElementById('notice').textContent.includes('set labels.folder')")
    page.screenshot(path=artefacts / "label-closed.png")
    assert page.errors == []
    page.close()


@pytest.mark.campaign
def test_the_dialog_says_why_a_frame_cannot_be_labelled_any_more(browser, serve, desk, recent):
    page = open_page(browser, serve(desk))
    page.wait_for_selector("#rows tr")
    seq = int(page.get_attribute("#rows tr", "data-seq"))
    page.click("#rows tr td:first-child")
    page.wait_for_selector("#evidence[open]")
    stored = recent.get(FrameKey("camera", seq)) is not None
    assert page.is_visible("#evidence-bar") == stored
    assert page.is_visible("#evidence-gone") != stored
    for ring in (recent._shown, recent._sampled):  # new frames displace the old ones
        ring._max_bytes = 0
        ring.shrink()
    wait_for(page, "!document.getElementById('evidence-gone').hidden")
    assert "no longer in memory" in page.inner_text("#evidence-gone")
    assert not page.is_visible("#evidence-bar")
    desk.folder.label(FrameKey("camera", seq), "gate-open", "m", b"x")  # a label can still be changed
    wait_for(page, "document.getElementById('evidence-gone').hidden")
    assert page.is_visible("#evidence-bar")
    assert page.errors == []
    page.close()


@pytest.mark.campaign
def test_teaching_is_shown_from_its_start_to_the_way_back(browser, serve, desk, artefacts):
    teacher = desk.teacher
    page = open_page(browser, serve(desk))
    page.wait_for_selector("#teach .counts li")
    assert page.is_disabled("[data-do=teach]")  # no picture yet
    for seq in range(6):
        desk.folder.label(FrameKey("camera", 100 + seq), ("gate-open", "gate-shut")[seq % 2], "m", b"x")
    wait_for(page, "!document.querySelector('[data-do=teach]').disabled")
    page.click("[data-do=teach]")
    wait_for(page, "true")
    teacher.shown = {"progress": {"work": "server features", "done": 30, "total": 120, "left_s": 40}}
    wait_for(page, "document.querySelector('.progress').textContent.includes('30 of 120, about 40 s left')")
    page.locator("#classes").screenshot(path=artefacts / "teaching.png")
    text = "The new head is in use. On 12 pictures labelled since: new head 12 right, head in use 9."
    teacher.shown = {"outcome": {"text": text, "kind": "good", "notes": ["a note"]}, "can_take_back": True}
    wait_for(page, "document.querySelector('.outcome').textContent.includes('new head 12 right, head in use 9')")
    page.locator("#classes").screenshot(path=artefacts / "taught.png")
    page.click("[data-do=back]")
    wait_for(page, "document.querySelector('[data-do=use]').hidden")
    teacher.shown = {"reason": "this installation has no `sagelink teach`"}
    page.wait_for_selector("[data-do=pack]:visible")
    with page.expect_download() as download:
        page.click("[data-do=pack]")
    assert download.value.suggested_filename == "labelled-pictures.zip"
    teacher.shown = {"missing": ["gate-ajar"]}
    wait_for(page, "document.querySelector('.outcome').textContent.includes('also knows gate-ajar')")
    page.click("[data-do=without]")
    deadline = time.monotonic() + PATIENCE_S
    while len(teacher.calls) < 3:
        assert time.monotonic() < deadline, teacher.calls
        page.wait_for_timeout(20)
    assert [*teacher.calls] == ["begin False", "back", "begin True"]
    assert page.inner_text("#teach .error") == ""
    assert page.errors == []
    page.close()


@pytest.mark.parametrize(
    ("name", "width", "height", "theme"), [("desktop", 1280, 900, "light"), ("phone", 390, 844, "dark")]
)
def test_the_labelling_page_fits_its_window(browser, serve, desk, artefacts, name, width, height, theme):
    desk.folder.label(FrameKey("camera", 0), "a class with quite a long name that goes on and on", "m", b"x")
    for number in range(14):
        desk.folder.add_class(f"class {number}")
    page = open_page(browser, serve(desk) + "label", width, height, theme)
    page.wait_for_selector("#picture:not([hidden])")
    wait_for(page, "document.getElementById('picture').naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=artefacts / f"label-{name}-{theme}.png", full_page=True)
    page.goto(page.url.removesuffix("label"))
    page.wait_for_selector(".camera-tile .class-bar button")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=artefacts / f"labels-dashboard-{name}-{theme}.png", full_page=True)
    assert page.errors == []
    page.close()
