"""Measures the cost of the dashboard: `python -m bench.dashboard [run | ready | hour]`.

run: synthetic frames through the whole pipeline with the demo pair, without and with four viewers that read every
message. Prints frames/s, processor time and peak resident memory. Frames per processor second depend less on other work
on the machine than frames/s.

ready: time from opening the page of a run at 30 frames/s, in a new Chromium, until the table shows frames and the tile
shows a picture.

hour: an hour of frames at 30 frames/s, sent through the feed in less than a minute to a page in Chromium. Prints the
page's heap by quarter of the hour: the minimum after garbage collection, without messages in transit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil
from prometheus_client import CollectorRegistry

from sagelink.models.unit_grid import UnitGrid
from sagelink.monitor.dashboard.routes import dashboard_app
from sagelink.monitor.dashboard.run_view import RunView
from sagelink.monitor.dashboard.verdict_feed import VerdictFeed
from sagelink.monitor.freshness import LinkWatch
from sagelink.monitor.live_stats import LiveStats
from sagelink.net.http import serve_http
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import WHOLE, Drop, EdgeOnly, EdgeView, Frame, Scored
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.fuse import Fuse
from sagelink.stages.run_control import Control
from sagelink.stages.zoom import thumbnail_of
from sagelink.transport.codecs import Canvas

_FRAMES, _ROUNDS, _VIEWERS, _OPENED = 600, 3, 4, 7
_PORT = 8697
_ADDRESS = f"127.0.0.1:{_PORT}"
_CHROMIUM = "/usr/bin/chromium"
_HOUR_FRAMES = 3600 * 30
_PUSHED_PER_S = 2500  # the page reads at most 3000: 300 frames ten times per second


def start_run(frames: int, *options: str) -> subprocess.Popen[bytes]:
    """Starts a run of the demo pair in a separate process."""
    settings = ["--models", "demo", "--uplink", "1Mbit/s", "--gate", "always", "--units", "32", *options]
    source = f"synthetic:{frames},size=640x480,fps=30"
    return subprocess.Popen(
        [sys.executable, "-m", "sagelink.app.cli", "run", source, *settings], stdout=subprocess.DEVNULL
    )


def measure_run(dashboard: bool) -> tuple[float, float, float]:
    """Frames/s, CPU seconds and peak resident MB of one run."""
    with tempfile.TemporaryDirectory() as out:
        run = start_run(_FRAMES, "--out", out, *(("--dashboard-address", _ADDRESS) if dashboard else ()))
        viewers = multiprocessing.Process(target=lambda: asyncio.run(view()), daemon=True)
        if dashboard:
            viewers.start()
        process, peak, cpu_s = psutil.Process(run.pid), 0, 0.0
        while run.poll() is None:
            with contextlib.suppress(psutil.Error):
                peak = max(peak, process.memory_info().rss)
                times = process.cpu_times()
                cpu_s = times.user + times.system
            time.sleep(0.05)
        if dashboard:
            viewers.kill()
        summary = json.loads((Path(out) / "summary.json").read_text())
        return summary["fps"], cpu_s, peak / 1e6


async def view() -> None:
    """Connects the viewers and reads all their messages."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async def viewer() -> None:
        while True:
            with contextlib.suppress(OSError, ConnectionClosed):
                async with connect(f"ws://{_ADDRESS}/ws", max_size=None) as socket:
                    async for _ in socket:
                        pass
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(_VIEWERS):
            group.create_task(viewer())


def bench_run() -> None:
    fps_ratios, cpu_ratios, extra_mb = [], [], []
    for _ in range(_ROUNDS):
        (alone_fps, alone_s, alone_mb), (fps, cpu_s, mb) = measure_run(False), measure_run(True)
        fps_ratios.append(fps / alone_fps)
        cpu_ratios.append(alone_s / cpu_s)
        extra_mb.append(mb - alone_mb)
        print(f"alone {alone_fps:.1f} fps, {alone_s:.1f} s, {alone_mb:.0f} MB; ", end="")
        print(f"{_VIEWERS} viewers {fps:.1f} fps, {cpu_s:.1f} s, {mb:.0f} MB")
    print(f"median ratio of frames/s: {statistics.median(fps_ratios):.3f} (limit: 0.90)")
    print(f"median ratio of frames per CPU second: {statistics.median(cpu_ratios):.3f}")
    print(f"median extra memory: {statistics.median(extra_mb):+.0f} MB (limit: 60 MB)")


def bench_ready() -> None:
    from playwright.sync_api import sync_playwright

    run = start_run(_HOUR_FRAMES, "--realtime", "--dashboard-address", _ADDRESS)
    ready_s = []
    try:
        while frames_so_far() < _FRAMES:
            time.sleep(0.5)
        with sync_playwright() as playwright:
            for _ in range(_OPENED):
                browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
                page = browser.new_page()
                began = time.monotonic()
                page.goto(f"http://{_ADDRESS}/")
                page.wait_for_selector("#rows tr")
                page.wait_for_selector(".camera-tile canvas[data-n]")
                ready_s.append(time.monotonic() - began)
                browser.close()
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()
    print(f"page ready after {', '.join(f'{s:.2f}' for s in ready_s)} s")
    print(f"median {statistics.median(ready_s):.2f} s, longest {max(ready_s):.2f} s (limit: 1 s)")


def frames_so_far() -> int:
    with contextlib.suppress(OSError), urlopen(f"http://{_ADDRESS}/api/stats") as answer:
        return int(json.load(answer)["frames"])
    return 0


async def push(feed: VerdictFeed, stats: LiveStats, run_view: RunView, done: threading.Event) -> None:
    """Serves an hour of frames; sets `done` after the last one and keeps serving for 3 s."""
    rng = np.random.default_rng(0)
    fuse = Fuse(False, {0.0: 0.0, 1.0: 1.0}, 196)
    pixels = rng.integers(0, 256, (480, 640, 3), np.uint8)
    answer = Answer(0, 0.5, np.log(np.full(2, 0.5, np.float32)))
    importance, embeddings = rng.random(196, np.float32), np.zeros((196, 1), np.float32)
    coder = Worker("bench")
    async with serve_http(dashboard_app(run_view, coder, None), "127.0.0.1", _PORT):
        began = time.monotonic()
        for seq in range(_HOUR_FRAMES):
            frame = Frame(seq, "camera", time.monotonic_ns(), seq / 30, pixels, 1.0)
            look = EdgeView(WHOLE, embeddings[0], thumbnail_of(pixels))
            scored = Scored(frame, pixels[:224, :224], answer, importance, embeddings, look, 1.0)
            verdict = fuse.decide(EdgeOnly(scored, Drop.GATE))
            feed.write(verdict)
            stats.write(verdict)
            if seq % 25 == 0:
                await asyncio.sleep(max(0.0, began + seq / _PUSHED_PER_S - time.monotonic()))
        done.set()
        await asyncio.sleep(3)
    coder.close()


def bench_hour() -> None:
    from playwright.sync_api import sync_playwright

    labels = ("a", "b")
    feed, stats, done = VerdictFeed(labels, live=False), LiveStats(), threading.Event()
    control = Control(UplinkBudget(64_000, 1.0), Gate(GateConfig()))
    link = LinkWatch()
    link.follow(lambda: None)

    def now() -> dict[str, Any]:
        snapshot = stats.snapshot(labels, {"camera": None})
        return snapshot | {"control": control.state()} | link.state(snapshot)

    run_view = RunView(
        title="an hour",
        models="none",
        grid=UnitGrid(224, 16, "bicubic", 1.0),
        canvas=Canvas(14, 16),
        resize="squash",
        policies=["always"],
        feed=feed,
        control=control,
        registry=CollectorRegistry(),
        now=now,
    )
    threading.Thread(target=lambda: asyncio.run(push(feed, stats, run_view, done)), daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://{_ADDRESS}/")
        page.wait_for_selector("#rows tr")
        session = page.context.new_cdp_session(page)
        heaps = []
        while not done.is_set():
            page.wait_for_timeout(1000)
            session.send("HeapProfiler.collectGarbage")
            heaps.append(session.send("Runtime.getHeapUsage")["usedSize"] / 1e6)
        last_row = page.evaluate("Number(document.querySelector('#rows tr').dataset.n)")
        browser.close()
    quarter = len(heaps) // 4
    minima = [min(heaps[i * quarter : (i + 1) * quarter]) for i in range(4)]
    print(
        f"{_HOUR_FRAMES} frames pushed, the last row is {last_row}; heap: {', '.join(f'{mb:.1f} MB' for mb in minima)}"
    )
    print(f"last quarter against second: {minima[3] / minima[1] - 1:+.1%}")


if __name__ == "__main__":
    parts = {"run": bench_run, "ready": bench_ready, "hour": bench_hour}
    for name in sys.argv[1:] or parts:
        parts[name]()
