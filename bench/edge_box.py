"""Measures a camera box without PyTorch: `python -m bench.edge_box SAGELINK CONFIG CLIP SERVER [SECONDS]`.

`SAGELINK`: the command of the box's environment, such as /opt/box/bin/sagelink. `CONFIG`: edge.yaml of the folder that
`sagelink pack` wrote. `SERVER`: address of a running `sagelink serve`. The clip plays in real time, with a dashboard.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

_POLL_S = 0.1


def installed_bytes(sagelink: Path) -> int:
    """The size of all files in the environment of the command."""
    return sum(path.lstat().st_size for path in sagelink.parents[1].rglob("*") if path.is_file() or path.is_symlink())


def live_run(command: list[str], results: Path, seconds: float) -> tuple[float, float, int, int]:
    """Wall and processor seconds from the start to the verdict on the first frame, the greatest resident memory in
    bytes, and the number of frames."""
    began_s = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        process = psutil.Process(run.pid)
        processor_s, most = None, 0
        while run.poll() is None and time.time() - began_s < seconds:
            most = max(most, process.memory_info().rss)
            if processor_s is None and results.is_file() and results.stat().st_size:
                used = process.cpu_times()
                processor_s = used.user + used.system
            time.sleep(_POLL_S)
        run.send_signal(signal.SIGINT)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    first = next(row for row in rows if row["drop"] != "superseded")
    wall_s = first["wall_s"] - began_s + first["latency_ms"]["total"] / 1e3
    return wall_s, processor_s or 0.0, most, len(rows)


def main() -> None:
    sagelink, config, clip, server = Path(sys.argv[1]), *sys.argv[2:5]
    seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 60.0
    print(f"installed: {installed_bytes(sagelink) / 1e6:.0f} MB (600 MB asked)")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = [
            "--realtime",
            "--server",
            server,
            "--uplink",
            "64kbit/s",
            "--dashboard=127.0.0.1:0",
            "--out",
            str(out),
        ]
        command = [str(sagelink), "run", clip, "--config", config, *options]
        wall_s, processor_s, most, frames = live_run(command, out / "results.jsonl", seconds)
    print(f"first verdict: {wall_s:.1f} s after the start, at most {processor_s:.1f} s of processor time (4 s asked)")
    print(f"resident memory of the live run: at most {most / 1e6:.0f} MB over {frames} frames (350 MB asked)")


if __name__ == "__main__":
    main()
