"""Measures recovery of a camera whose RTSP server restarts: `python -m bench.cameras [--minutes M]`.

Two cameras read live streams, each from its own RTSP server. The first server is killed every 20 s for 5 s. Prints the
time from the restart to the first frame, the frame rate of the second camera during outages as a share of its normal
rate, resident memory, threads, and the age of frames when their scoring begins, which includes the wait for the scorer.
The hand-off from the camera's thread through the graph to an idle scorer is measured first, for half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from sagelink.app.edge.run import prepare
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.graph import Graph
from sagelink.pipeline.threads import InThread
from sagelink.pipeline.types import Frame, Scored, Verdict
from sagelink.stages.cameras.camera import Camera
from sagelink.stages.score import Score

SERVER = Path(__file__).parents[1] / "tests" / "rtsp_server.py"
PERIOD_S, DOWN_S, WARM_UP_S = 20.0, 5.0, 20.0
FPS = 20


def start(port: str = "0") -> tuple[subprocess.Popen[str], str]:
    """Starts a server; returns it with its port."""
    command = ["/usr/bin/python3", str(SERVER), "--port", port, "--fps", str(FPS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


class ServerKiller(threading.Thread):
    """Kills and restarts the first server, and samples memory and threads of this process."""

    def __init__(self, server: subprocess.Popen[str], port: str, until_s: float) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.outages: list[tuple[float, float]] = []  # start and end, monotonic seconds
        self.samples: list[tuple[float, int]] = []  # resident bytes, threads
        self._port = port
        self._until_s = until_s

    def run(self) -> None:
        process = psutil.Process()
        next_kill_s = time.monotonic() + WARM_UP_S
        while time.monotonic() < self._until_s:
            time.sleep(0.5)
            self.samples.append((process.memory_info().rss, process.num_threads()))
            if next_kill_s <= time.monotonic() < self._until_s - PERIOD_S:
                killed_s = time.monotonic()
                self.server.kill()
                self.server.wait()
                time.sleep(DOWN_S)
                self.server, _ = start(self._port)
                self.outages.append((killed_s, time.monotonic()))
                next_kill_s += PERIOD_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    seconds = parser.parse_args().minutes * 60
    servers = [start(), start()]
    cameras = [
        {"name": name, "source": f"rtsp://127.0.0.1:{port}/live"}
        for name, (_, port) in zip(("restarted", "steady"), servers, strict=True)
    ]
    hand_off(cameras[1]["source"])
    options = {"models": "demo", "cameras": cameras, "capture.duration": seconds, "threads": 1}
    frames: dict[str, list[float]] = {"restarted": [], "steady": []}  # capture times, monotonic seconds
    ages_ms: list[float] = []
    scored = Score.__call__

    def score(self: Score, batch: list[Frame]) -> list[Scored]:
        ages_ms.extend(frame.age_ms(time.monotonic_ns()) for frame in batch)
        return scored(self, batch)

    def record(verdict: Verdict) -> None:
        frames[verdict.frame.camera].append(verdict.frame.capture_ns / 1e9)

    Score.__call__ = score  # type: ignore[method-assign]
    run = prepare(load_config(None, options))
    killer = ServerKiller(*servers[0], time.monotonic() + seconds)
    killer.start()
    try:
        summary = run.run(record)
    finally:
        killer.server.kill()
        servers[1][0].kill()
    report(killer, frames, ages_ms, summary)
    for thread in threading.enumerate():  # Python aborts if it ends while a thread is inside OpenCV
        if thread.name.startswith("sagelink-camera"):
            thread.join(timeout=15)


def hand_off(url: str) -> None:
    """Prints the age of frames when they reach an idle thread at the end of the graph."""
    ages_ms: list[float] = []
    graph = Graph()
    camera = Camera(CameraConfig(name="camera", source=url), duration_s=30)
    frames = graph.source(camera, policy="latest")
    graph.stage(InThread("score", lambda frame: ages_ms.append(frame.age_ms(time.monotonic_ns()))), frames)
    asyncio.run(graph.run())
    p50, p99 = np.percentile(ages_ms, [50, 99])
    print(f"hand-off: p50 {p50:.2f} ms, p99 {p99:.2f} ms of {len(ages_ms)} frames (limit 5 ms on an idle machine)")


def report(
    killer: ServerKiller, frames: dict[str, list[float]], ages_ms: list[float], summary: dict[str, object]
) -> None:
    recovery_s = [frames["restarted"][bisect.bisect(frames["restarted"], up_s)] - up_s for _, up_s in killer.outages]
    print(
        f"killed {len(recovery_s)} times; first frame after the server's return: "
        f"median {np.median(recovery_s):.2f} s, longest {max(recovery_s):.2f} s (limit 3 s)"
    )
    steady = frames["steady"]
    rates = {"down": [], "up": []}  # frames/s of the other camera
    for (down_s, up_s), after in zip(killer.outages, [*killer.outages[1:], None], strict=True):
        end_s = after[0] if after else steady[-1]
        rates["down"].append(rate(steady, down_s, up_s))
        rates["up"].append(rate(steady, up_s, end_s))
    ratio = float(np.mean(rates["down"]) / np.mean(rates["up"]))
    print(
        f"other camera: {np.mean(rates['up']):.2f} frames/s, while the first is down {ratio:.3f} of that (limit 0.95)"
    )
    quarter = len(killer.samples) // 4
    memory = [np.mean([rss for rss, _ in killer.samples[i * quarter : (i + 1) * quarter]]) / 1e6 for i in range(4)]
    threads = [max(count for _, count in killer.samples[i * quarter : (i + 1) * quarter]) for i in range(4)]
    print(
        f"resident MB by quarter: {', '.join(f'{megabytes:.1f}' for megabytes in memory)}: last over second "
        f"{memory[3] / memory[1] - 1:+.2%}; most threads: {threads}"
    )
    print(
        f"capture to scoring: p50 {np.percentile(ages_ms, 50):.2f} ms, p99 {np.percentile(ages_ms, 99):.2f} ms "
        f"of {len(ages_ms)} frames"
    )
    print(f"cameras at the end: {summary['cameras']}")


def rate(times: list[float], begin_s: float, end_s: float) -> float:
    """Frames/s between two times; `times` is sorted."""
    return (bisect.bisect(times, end_s) - bisect.bisect(times, begin_s)) / (end_s - begin_s)


if __name__ == "__main__":
    main()
