"""Whole runs in tests: processes of both sides, the lines that a run has written so far, and its accounts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from tests.patience import PATIENCE_S
from tests.processes import Sagelink

Line = dict[str, Any]  # of results.jsonl

RESULT_KEYS = {
    *("seq", "stream_s", "sent_s", "label", "class_id", "prob", "origin", "drop", "crop", "units", "lost_units"),
    *(
        "wire_bits",
        "codec",
        "side",
        "quality",
        "capture_s",
        "wall_s",
        "pts_s",
        "scored",
        "scene",
        "edge_weight",
        "server_seq",
    ),
    *(
        "revised_from",
        "allowance_bits",
        "window_bits",
        "budget_bits",
        "edge",
        "server",
        "latency_ms",
        "camera",
        "name",
        "truth",
        "event",
        "heads",
        "classes",
    ),
}


def run_here(pair: Pair, source: object, out: Path, **options: object) -> tuple[list[Line], dict[str, Any]]:
    """Lines and summary of a run in this process; `gate__policy="always"` sets gate.policy."""
    settings = {key.replace("__", "."): value for key, value in options.items()}
    given = {"models": "demo", "capture.source": str(source), "output.out": str(out), **settings}
    prepare(load_config(None, given), pair).run()
    lines, summary = read(out)
    check_accounts(lines, summary)
    return lines, summary


def serve(url: str, *arguments: str, **environment: str) -> Sagelink:
    return Sagelink("serve", "--listen", url, "--models", "demo", *arguments, **environment)


def live_run(url: str, out: Path, *arguments: str | Path, fps: int = 5, **environment: str) -> Sagelink:
    """Runs for longer than any test; each frame is offloaded when the link and the budget allow it."""
    return Sagelink(
        *("run", f"synthetic:6000,fps={fps}", "--realtime", "--models", "demo", "--server", url),
        *("--gate", "always", "--units", "32", "--uplink", "512kbit/s", "--out", out, "--set", "mqtt.node=edge"),
        *arguments,
        **environment,
    )


def lines_so_far(out: Path) -> list[Line]:
    """The complete lines of a run that goes on."""
    results = out / "results.jsonl"
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]


def wait_for_lines(out: Path, matches: Callable[[Line], bool] = lambda line: True, count: int = 3) -> int:
    """Waits until the run has written `count` more lines that match; returns the number of all lines."""
    end_s, before = time.monotonic() + PATIENCE_S, len(lines_so_far(out))
    while sum(map(matches, lines_so_far(out)[before:])) < count:
        assert time.monotonic() < end_s, f"no matching line among {lines_so_far(out)[before:][-3:]}"
        time.sleep(0.05)
    return len(lines_so_far(out))


def answered(line: Line) -> bool:
    return line["server"] is not None


def dropped(reason: str) -> Callable[[Line], bool]:
    return lambda line: line["drop"] == reason


def read(folder: Path) -> tuple[list[Line], dict[str, Any]]:
    """Lines and summary of a run that has ended."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "summary.json").read_text())


def finish(run: Sagelink, out: Path) -> tuple[list[Line], dict[str, Any]]:
    """Lines and summary of a run process, which must end with exit code 0 and complete accounts."""
    assert run.ended() == 0, run.output
    assert "Traceback" not in run.output, run.output
    lines, summary = read(out)
    check_accounts(lines, summary)
    return lines, summary


def check_accounts(lines: list[Line], summary: dict[str, Any]) -> None:
    """Asserts what holds for every run: one line per frame, and no window above the budget."""
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert summary["frames"] == summary["verdicts"] == len(lines)
    assert sum(summary["origins"].values()) == len(lines)
    sent = [(line["sent_s"], line["wire_bits"]) for line in lines if line["sent_s"] is not None]
    assert summary["offloaded"] == len(sent)
    assert summary["scored"] == sum(line["scored"] for line in lines)
    assert summary["wire_bits"] == sum(bits for _, bits in sent)
    for line in lines:
        assert set(line) == RESULT_KEYS
        assert (line["server"] is None) == (line["drop"] is not None)
        assert (line["sent_s"] is None) == (line["wire_bits"] == 0) == (line["units"] == 0)
        if line["sent_s"] is not None and line["allowance_bits"] is not None:
            assert line["wire_bits"] <= line["allowance_bits"]
    if summary["budget_bits"] is not None:
        window_s = summary["window_s"]
        peak = max((sum(b for t, b in sent if s <= t < s + window_s) for s, _ in sent), default=0)
        assert max(peak, summary["peak_window_bits"]) <= summary["budget_bits"]
