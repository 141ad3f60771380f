"""Measures how browsers that use a server as cameras slow down another camera at the same server.

    python -m bench.browsers [--browsers 0 1 8] [--seconds 20]

For each number of browsers it starts a server with the demo pair, a live run at 5 frames/s that sends every frame over
WebRTC, and Chromium pages with a fake camera. It prints the answered frames of the run, median and p95 from sending to
reply, the processor cores that the server uses, and the answers/s per page. The ratio of the medians is the cost of the
browsers; it includes Chromium's video encoding on the same machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_PORT = 8696
_URL = f"127.0.0.1:{_PORT}"
_CHROMIUM = "/usr/bin/chromium"
_OPTIONS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
_SETTLE_MS = 3000
_LIVE = "document.getElementById('connection').textContent === 'live'"
_ANSWERS = "Number(document.body.dataset.answers ?? 0)"


def sagelink(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "sagelink.app.cli", *arguments], stdout=subprocess.PIPE, text=True)


def measure(browsers: int, seconds: float) -> float:
    """Prints a row; returns the median round trip in ms."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as out, sync_playwright() as playwright:
        server = sagelink("serve", "--listen", f"webrtc+http://{_URL}", "--models", "demo")
        assert server.stdout is not None
        server.stdout.readline()
        run = sagelink(
            *("run", "synthetic:100000,fps=5", "--realtime", "--models", "demo", "--gate", "always", "--out", out),
            *("--server", f"webrtc+http://{_URL}", "--uplink", "unlimited", "--units", "48"),
        )
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=_OPTIONS)
        pages = [chromium.new_page() for _ in range(browsers)]
        for page in pages:
            page.goto(f"http://{_URL}/")
        clock = chromium.new_page()
        while not lines(out) or not all(page.evaluate(_LIVE) for page in pages):
            clock.wait_for_timeout(100)
        clock.wait_for_timeout(_SETTLE_MS)
        process = psutil.Process(server.pid)
        before, answers = len(lines(out)), sum(page.evaluate(_ANSWERS) for page in pages)
        used_s = -sum(process.cpu_times()[:2])
        clock.wait_for_timeout(1000 * seconds)
        used_s += sum(process.cpu_times()[:2])
        answers = sum(page.evaluate(_ANSWERS) for page in pages) - answers
        frames = lines(out)[before:]
        chromium.close()
        for child in (run, server):
            child.send_signal(signal.SIGINT)
            child.wait()
    times = [frame["latency_ms"]["ship"] for frame in frames if frame["server"] is not None]
    drops = Counter(frame["drop"] for frame in frames if frame["drop"])
    median, p95 = np.percentile(times, [50, 95])
    per_page = f"{answers / seconds / browsers:.1f}" if browsers else "-"
    print(
        f"{browsers} browsers: {len(times)} of {len(frames)} frames answered {dict(drops) or ''}, {median:.1f} ms, "
        f"p95 {p95:.1f} ms; server {used_s / seconds:.2f} cores; answers/s of a page {per_page}",
        flush=True,
    )
    return float(median)


def lines(out: str) -> list[dict[str, Any]]:
    """The complete lines of results.jsonl so far."""
    results = Path(out) / "results.jsonl"
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", type=int, nargs="+", default=[0, 1, 8])
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    medians = [measure(count, arguments.seconds) for count in arguments.browsers]
    print("medians, over the first: " + ", ".join(f"{median / medians[0]:.2f}" for median in medians))


if __name__ == "__main__":
    main()
