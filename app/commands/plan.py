"""`sagelink plan`: takes a recording and quotas, repeats it to a month in virtual time, writes plan.json and a plot.

Heavy imports stay inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_args

import typer

from sagelink.app.options import HeadOption, SetOption, head_settings, parse_names
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.json_text import to_json

if TYPE_CHECKING:
    from sagelink.lab.plan.month import Demand
    from sagelink.lab.plan.recorded_demand import RecordedDemand
    from sagelink.pipeline.budget.pacing import PaceName
    from sagelink.pipeline.budget.quota import Quota

_RESULT, _PLOT = "plan.json", "plan.png"
_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the quotas
_DAY_S = 86_400.0


def plan(
    recording: Annotated[Path, typer.Argument(help="Folder that `sagelink run --record` wrote.", metavar="DIR")],
    quota: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="BYTES/PERIOD",
            help="Quota: 500MB/month, 20MB/day or 5MB/24h; may be repeated (default: those of the recording).",
        ),
    ] = None,
    pace: Annotated[
        str, typer.Option(metavar="NAME,...", help="Paces to compare: even, adaptive, as-needed.")
    ] = "even,adaptive,as-needed",
    uplink: Annotated[Optional[str], typer.Option(metavar="RATE", help="Another budget rate: 64kbit/s.")] = None,
    head: HeadOption = None,
    assignments: SetOption = None,
    out: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Folder for plan.json and plan.png (default: DIR/plan).")
    ] = None,
) -> None:
    """Tell what a quota would do in a month.

    A recorded day is repeated to a month: when the quota would be gone, how many frames the server answers, and what
    smaller and larger quotas would give."""
    from sagelink.app.replay.recorded_config import recorded_config
    from sagelink.lab.harness import Harness
    from sagelink.lab.plan.month import SITE
    from sagelink.lab.plan.recorded_demand import RecordedDemand
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.pipeline.budget.pacing import PaceName
    from sagelink.pipeline.config.file import parse_assignments
    from sagelink.pipeline.files.output_files import PLOT_MARK, check_output_file, marked, with_keys
    from sagelink.pipeline.files.private_files import make_private_folder
    from sagelink.stages.recording_reader import RecordingReader

    paces: list[PaceName] = parse_names("--pace", pace, get_args(PaceName))
    given: dict[str, object] = {"budget.quotas": quota or None, "budget.uplink": uplink}
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= head_settings(head or []) | parse_assignments(assignments or [])
    reader = RecordingReader(recording)
    config = recorded_config(recording, {"ship.server": "", **changes})
    quotas = {SITE: [each.quota() for each in config.budget.quotas]}
    quotas |= {
        camera.name: [each.quota() for each in camera.budget.quotas] for camera in config.all_cameras if camera.budget
    }
    if not any(quotas.values()):
        raise UsageError("no quota given; accepted: --quota 500MB/month, or a recording that was made with quotas")
    if not config.weighs_messages:
        raise UsageError("a plan weighs messages by the frontier; accepted: fuse.rule weighted, and no fuse.weights")
    folder = out or recording / "plan"
    check_output_file(folder / _RESULT, with_keys({"quotas", "rows", "measured"}), "`sagelink plan`")
    check_output_file(folder / _PLOT, marked(PLOT_MARK), "`sagelink plan`")
    make_private_folder(folder)
    played = RecordedDemand(reader, config, Harness(Pair.load(config), config.capture.resize))
    console, interrupted = SafeConsole(), False
    with ProgressBar(console) as bar:
        try:
            played.play(bar.show)
        except KeyboardInterrupt:
            interrupted = True
        if not played.frames:
            raise SagelinkError("interrupted before the first frame was played: there is nothing to plan with")
        rows = _rows(played.demands(), quotas, paces, _start_s(reader), bar.show)
    report = _report(played, quotas, rows, interrupted)
    _write(console, report, folder)
    if interrupted:
        console.print(f"interrupted: only {played.frames} of {len(reader.rows)} frames count", style="yellow")
    console.print(f"written to {folder}", soft_wrap=True)


def _start_s(reader: Any) -> float:
    """When the recording was made: the periods of the quotas that hold this time are planned."""
    return float(min(row["wall_ns"] for row in reader.rows.values()) / 1e9)


def _rows(
    demands: Mapping[str, Demand],
    quotas: Mapping[str, Sequence[Quota]],
    paces: Sequence[PaceName],
    made_s: float,
    progress: Any,
) -> list[dict[str, Any]]:
    """One row per size of the quotas and pace."""
    from dataclasses import replace

    from sagelink.lab.plan.month import play_month

    start_s, length_s = _month([quota for each in quotas.values() for quota in each], made_s)
    rows: list[dict[str, Any]] = []
    for scale in _SCALES:
        scaled = {
            scope: [replace(quota, limit_bits=max(1, round(quota.limit_bits * scale))) for quota in each]
            for scope, each in quotas.items()
        }
        for pace in paces:
            outcome = play_month(demands, scaled, pace, start_s, length_s)
            rows.append({"scale": scale, "pace": pace, **asdict(outcome)})
            progress("months", len(rows), len(_SCALES) * len(paces))
    return rows


def _month(quotas: Sequence[Quota], made_s: float) -> tuple[float, float]:
    """Start and length of the planned time: the month that a quota counts, else 30 days."""
    for quota in quotas:
        if quota.calendar is not None and quota.calendar.per == "month":
            start_s, end_s = quota.calendar.period(made_s)
            return start_s, end_s - start_s
    start_s = made_s - made_s % _DAY_S
    return start_s, 30 * _DAY_S


def _report(
    played: RecordedDemand, quotas: Mapping[str, Sequence[Quota]], rows: list[dict[str, Any]], stopped: bool
) -> dict[str, Any]:
    demands = [*played.demands().values()]
    recorded_s = demands[0].slot_s * len(demands[0].frames)
    frames = sum(demand.frames.sum() for demand in demands)
    return {
        "quotas": [
            {"name": quota.name, "camera": scope, "limit_bits": quota.limit_bits}
            for scope, each in quotas.items()
            for quota in each
        ],
        "frames": played.frames,
        "measured": "accuracy" if played.has_truth else "agreement with the answers without a quota",
        "edge_right": float(sum(demand.edge_right.sum() for demand in demands) / frames),
        "unlimited_right": float(sum(demand.right[0].sum() for demand in demands) / frames),
        "unlimited_bits_a_day": float(sum(demand.bits[0].sum() for demand in demands) / recorded_s * _DAY_S),
        "interrupted": stopped,
        "rows": rows,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write(console: Any, report: dict[str, Any], folder: Path) -> None:
    from sagelink.lab.plan.tables import draw_month_plot, month_table
    from sagelink.pipeline.files.output_files import cannot_write
    from sagelink.pipeline.files.private_files import replace_text
    from sagelink.pipeline.quantities import format_bytes

    console.print(month_table(report))
    console.print(
        f"without a quota: {format_bytes(report['unlimited_bits_a_day'] / 8)} a day, {report['unlimited_right']:.1%}; "
        f"edge alone: {report['edge_right']:.1%}",
        highlight=False,
        soft_wrap=True,
    )
    try:
        replace_text(folder / _RESULT, to_json(report, indent=1) + "\n")
        draw_month_plot(report, folder / _PLOT)
    except OSError as error:
        raise cannot_write(folder, error) from None
