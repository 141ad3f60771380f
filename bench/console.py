"""Cost of the console: `python -m bench.console --cameras 1000 --seconds 600`.

Starts mosquitto, `sagelink console` and a publisher that stands for the cameras and their server: each camera sends one
evidence message a second, and gets an answer. Prints, as a table, messages sent and observed, processor share and
memory of the console, first paint of its page in a new browser, and the longest time until a change at a camera is on
that page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.console_messages import PublishingSocket, announcements, publish, state_packet
from bench.ports import free_port
from sagelink.transport.mqtt.topics import SESSION_BYTES

_CHROMIUM = "/usr/bin/chromium"
_WATCHED = "watched/door"  # the camera whose state changes
_CHANGES = 6
_PATIENCE_S = 20.0
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_STATE = "document.querySelector('.fleet-row:not([hidden])')?.dataset.state"


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        return bytes(answer.read())


def observed(url: str) -> tuple[int, int]:
    """Cameras and messages that the console has observed."""
    lines = dict(line.rsplit(" ", 1) for line in fetched(f"{url}metrics").decode().splitlines() if line[0] != "#")
    return int(float(lines["sagelink_console_cameras"])), int(float(lines["sagelink_console_observed_messages"]))


@dataclass(frozen=True, slots=True)
class Page:
    """Times of the page in a browser."""

    paint_s: float
    change_s: float  # the longest


class Watcher:
    """Opens the page in a new browser, and changes the state of a camera."""

    def __init__(self, broker_port: int, url: str) -> None:
        self._url = url
        self._session = secrets.token_bytes(SESSION_BYTES)
        self._broker = PublishingSocket(broker_port)
        self._broker.send(announcements(self._session, [_WATCHED]))

    def look(self) -> Page:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(self._url)
            page.wait_for_selector(".fleet-row[href]")
            paint_s = page.evaluate(_PAINT) / 1000
            page.fill("#text", _WATCHED)
            self._wait(page, "running")
            change_s = max(self._change(page, online=bool(number % 2)) for number in range(_CHANGES))
            browser.close()
        return Page(paint_s, change_s)

    def _change(self, page: Any, online: bool) -> float:
        began = time.monotonic()
        self._broker.send([state_packet(self._session, _WATCHED, online)])
        self._wait(page, "running" if online else "offline")
        return time.monotonic() - began

    def _wait(self, page: Any, state: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while page.evaluate(_STATE) != state:
            if time.monotonic() > end:
                raise TimeoutError(f"{_WATCHED} is not shown as {state}")
            page.wait_for_timeout(10)


@contextmanager
def started(store: bool) -> Iterator[tuple[int, str, psutil.Process]]:
    """The broker's port, the console's address and its process."""
    broker_port, port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder:
        broker = subprocess.Popen(["mosquitto", "-p", str(broker_port)], stderr=subprocess.DEVNULL)  # noqa: S607
        time.sleep(1)
        command = [sys.executable, "-m", "sagelink", "console", f"mqtt://127.0.0.1:{broker_port}"]
        command += ["--http", f"127.0.0.1:{port}", *(["--store", str(Path(folder) / "store")] if store else [])]
        console = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert console.stdout is not None
            console.stdout.readline()
            yield broker_port, url, psutil.Process(console.pid)
        finally:
            console.terminate()
            console.wait()
            broker.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--every", type=float, default=30, help="seconds between two lines")
    parser.add_argument("--store", action="store_true", help="with a store in a temporary folder")
    given = parser.parse_args()
    with started(given.store) as (broker_port, url, console):
        sent = multiprocessing.Value("q", 0)
        sender = multiprocessing.Process(
            target=publish, args=(broker_port, given.cameras, given.seconds + 60, sent), daemon=True
        )
        sender.start()
        watcher = Watcher(broker_port, url)
        time.sleep(10)
        print("| after | cameras | sent/s | observed/s | processor | memory | /api/cameras | first paint | change |")
        print("|---|---|---|---|---|---|---|---|---|")
        began = time.monotonic()
        while time.monotonic() < began + given.seconds:
            print(_line(console, url, sent, watcher, given.every, began), flush=True)


def _line(console: psutil.Process, url: str, sent: Any, watcher: Watcher, every: float, began: float) -> str:
    times, (_, messages), before, then = console.cpu_times(), observed(url), sent.value, time.monotonic()
    page = watcher.look()
    time.sleep(max(0.0, then + every - time.monotonic()))
    now, (cameras, later), after = console.cpu_times(), observed(url), sent.value
    passed = time.monotonic() - then
    share = (now.user + now.system - times.user - times.system) / passed
    asked = time.monotonic()
    json.loads(fetched(f"{url}api/cameras?count=100"))
    cells = (
        f"{time.monotonic() - began:.0f} s",
        cameras,
        f"{(after - before) / passed:.0f}",
        f"{(later - messages) / passed:.0f}",
        f"{share:.0%}",
        f"{console.memory_info().rss / 1e6:.0f} MB",
        f"{(time.monotonic() - asked) * 1e3:.0f} ms",
        f"{page.paint_s:.2f} s",
        f"{page.change_s:.2f} s",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
