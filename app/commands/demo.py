"""`sagelink demo`: runs the bundled models on synthetic frames under several budgets, and prints a table.

The second half teaches own classes (`app.commands.own_classes_demo`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from sagelink.app.commands.own_classes_demo import show_own_classes
from sagelink.app.edge.run import prepare
from sagelink.monitor.terminal.terminal import SafeConsole
from sagelink.pipeline.config.file import load_config

# The run's title in the table, its folder, its settings.
_RUNS: list[tuple[str, str, dict[str, object]]] = [
    ("edge only", "edge-only", {"gate.policy": "never", "budget.uplink": "unlimited"}),
    ("32 kbit/s", "32kbit", {"budget.uplink": "32kbit/s"}),
    ("128 kbit/s", "128kbit", {"budget.uplink": "128kbit/s"}),
    ("unlimited", "unlimited", {"budget.uplink": "unlimited"}),
]


def run_demo(out: Path, frames: int) -> None:
    """Runs the same `frames` synthetic frames under each budget; prints the table, and writes each run below `out`."""
    from sagelink.models.pair import Pair

    console = SafeConsole()
    pair = None
    title = f"{frames} synthetic frames of 16 classes, 5 per second; peak bits in any window of 1 s"
    table = Table(title=title, title_justify="left")
    for heading in ("budget", "accuracy", "offloaded", "bytes/frame", "peak, bits", "limit, bits"):
        table.add_column(heading, justify="left" if heading == "budget" else "right", no_wrap=True)
    for title, folder, settings in _RUNS:
        outputs: dict[str, object] = {"output.out": str(out / folder)}
        if folder == "32kbit":
            outputs["output.annotate"] = str(out / folder / "annotated.mp4")
        config = load_config(None, {"capture.source": f"synthetic:{frames}", "models": "demo", **settings, **outputs})
        pair = pair or Pair.load(config)
        run = prepare(config, pair)
        console.print(f"{title} ...")
        with run.status.panel(console) as panel:
            summary = run.run(watch=panel.show)
        table.add_row(title, *_cells(summary))
        if summary["interrupted"]:
            break
    console.print(table)
    console.print(f"runs, with one line per frame, in {out}", soft_wrap=True)
    if pair is not None and not summary["interrupted"]:
        show_own_classes(console, pair, out / "own")


def _cells(summary: dict[str, Any]) -> list[str]:
    frames = max(summary["frames"], 1)
    accuracy = summary["accuracy"]
    return [
        f"{accuracy['verdict']:.1%}" if accuracy else "",
        f"{summary['offloaded'] / frames:.0%}",
        f"{summary['wire_bits'] / 8 / frames:.0f}",
        str(summary["peak_window_bits"]),
        str(summary["budget_bits"] or "none"),
    ]
