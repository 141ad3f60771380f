"""The summary of a run: counts, bits, latency and accuracy as plain JSON values. docs/outputs.md describes its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.output_files import SUMMARY, cannot_write
from sagelink.pipeline.files.private_files import replace_text

if TYPE_CHECKING:
    from sagelink.app.edge.budgets import Budgets
    from sagelink.models.run_models import RunModels
    from sagelink.pipeline.budget.camera_accounts import CameraAccount
    from sagelink.stages.capture import Capture
    from sagelink.stages.sinks.tally import Tally


def run_summary(
    tally: Tally,
    captures: Sequence[Capture],
    budgets: Budgets,
    models: RunModels,
    wall_s: float,
    interrupted: bool,
) -> dict[str, object]:
    """`wall_s`: duration of the run."""
    accounts, budget = budgets.accounts, budgets.site
    frames = sum(capture.captured for capture in captures)
    total, latency = tally.total, tally.latency
    return {
        "frames": frames,
        "verdicts": total.verdicts,
        "scored": total.scored,
        "offloaded": total.offloaded,
        "origins": dict(total.origins),
        "drops": dict(total.drops),
        "revised": total.revised,
        "unknown": total.unknown,
        "wire_bits": total.wire_bits,
        "peak_window_bits": budget.peak_window_bits,
        "budget_bits": budget.limit_bits,
        "window_s": budget.window_s,
        "quotas": budgets.quota_states(),
        "fps": frames / wall_s if wall_s else 0.0,
        "wall_s": wall_s,
        "latency_ms": {"p50": latency.percentile(0.5), "p95": latency.percentile(0.95), "max": latency.max_ms},
        "accuracy": total.accuracy(),
        "skipped": sum(capture.skipped for capture in captures),
        "interrupted": interrupted,
        "source": sources(captures),
        "cameras": {capture.name: _camera(capture, tally, accounts[capture.name]) for capture in captures},
        "models": {"edge": models.edge.name, "server": models.server.name},
    }


def sources(captures: Sequence[Capture]) -> str:
    """The sources that are read, without credentials."""
    return ", ".join(capture.source for capture in captures)


def write_summary(folder: Path, summary: Mapping[str, object], keeper: DiskKeeper | None = None) -> None:
    """Writes summary.json at once or not at all: a reader never finds half of it. Raises SagelinkError."""
    write = partial(replace_text, folder / SUMMARY, to_json(summary, indent=2) + "\n")
    try:
        if keeper is None:
            write()
        else:
            keeper.attempt(write)
    except OSError as error:
        raise cannot_write(folder / SUMMARY, error) from None


def _camera(capture: Capture, tally: Tally, account: CameraAccount) -> dict[str, object]:
    counts = tally.cameras[capture.name]
    return {
        "source": capture.source,
        "frames": capture.captured,
        "offloaded": counts.offloaded,
        "wire_bits": counts.wire_bits,
        "peak_window_bits": account.own.peak_window_bits,
        "budget_bits": account.limit_bits,
        "skipped": capture.skipped,
        "health": capture.health(),
    }
