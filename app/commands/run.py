"""The command `run`: runs a source, and shows the run in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.command_line import DASHBOARD
from sagelink.app.options import ModelOptions, with_model_options

if TYPE_CHECKING:
    from sagelink.pipeline.config.schema import Config


@with_model_options
def run(
    options: ModelOptions,
    source: Annotated[
        Optional[str],
        typer.Argument(
            metavar="SOURCE",
            help="Video file, folder of images, webcam (0, /dev/video0), rtsp:// or http(s):// URL, webrtc:, "
            "synthetic:N.",
        ),
    ] = None,
    server: Annotated[
        Optional[str],
        typer.Option(
            metavar="URL",
            help="Address of a `sagelink serve`: mqtt://host:port[,host:port] of its broker, or its own "
            "webrtc+http://host:port.",
        ),
    ] = None,
    uplink: Annotated[
        Optional[str],
        typer.Option(metavar="RATE", help="Budget rate, with its unit: 64kbit/s, 0.5Mbit/s, 8kB/s, unlimited."),
    ] = None,
    window: Annotated[
        Optional[str], typer.Option(metavar="TIME", help="Budget window, with its unit: 500ms, 1s, 2min, 1h.")
    ] = None,
    quota: Annotated[
        Optional[list[str]],
        typer.Option(metavar="BYTES/PERIOD", help="Quota: 500MB/month, 20MB/day or 5MB/24h; may be repeated."),
    ] = None,
    pace: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="How a quota is spread over its period: adaptive, even or as-needed."),
    ] = None,
    ledger: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="File that keeps what was spent; quotas need one.")
    ] = None,
    selector: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Unit selector: coverage, sage, topk, mmr, fps, uniform or random."),
    ] = None,
    importance: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Importance of units: last, rollout or gradient.")
    ] = None,
    units: Annotated[Optional[str], typer.Option(metavar="N", help="Maximum number of units per frame.")] = None,
    gate: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Gate policy: min_entropy, margin, always or never.")
    ] = None,
    realtime: Annotated[
        Optional[bool], typer.Option("--realtime/--fast", help="Play a file at its own pace, or as fast as possible.")
    ] = None,
    fps: Annotated[
        Optional[str], typer.Option(metavar="N", help="Frames per second to process (default: all).")
    ] = None,
    duration: Annotated[
        Optional[str], typer.Option(metavar="TIME", help="End the run after this time: 30s, 5min, 2h, 1d.")
    ] = None,
    max_frames: Annotated[
        Optional[str], typer.Option(metavar="N", help="End each camera after this number of frames.")
    ] = None,
    backend: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Library that reads cameras: opencv or pyav.")
    ] = None,
    resize: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="squash: the whole frame; crop: its central square.")
    ] = None,
    out: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Folder for results.jsonl and summary.json.")
    ] = None,
    annotate: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="Annotated video to write, an .mp4 file.")
    ] = None,
    record: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Folder for a recording, which `sagelink replay` runs again.")
    ] = None,
    dashboard: Annotated[
        Optional[str],
        typer.Option(
            help=f"Serve a web page that shows the run; without an address on {DASHBOARD}.", metavar="[HOST:PORT]"
        ),
    ] = None,
    dashboard_address: Annotated[Optional[str], typer.Option(hidden=True)] = None,
) -> None:
    """Run a source: one verdict for every captured frame."""
    settings = options.load(
        {
            "capture.source": source,
            "ship.server": server,
            "budget.uplink": uplink,
            "budget.window": window,
            "budget.quotas": quota or None,
            "budget.pace": pace,
            "budget.ledger": ledger,
            "select.selector": selector,
            "select.importance": importance,
            "select.units": units,
            "gate.policy": gate,
            "capture.realtime": realtime,
            "capture.fps": fps,
            "capture.duration": duration,
            "capture.max_frames": max_frames,
            "capture.backend": backend,
            "capture.resize": resize,
            "output.out": out,
            "output.annotate": annotate,
            "output.record": record,
            "dashboard.address": dashboard_address or dashboard,
        }
    )
    _run(settings)


def _run(settings: Config) -> None:
    from sagelink.app.edge.run import prepare
    from sagelink.monitor.terminal.summary import summary_table
    from sagelink.monitor.terminal.terminal import SafeConsole

    prepared = prepare(settings)
    console = SafeConsole()
    with prepared.status.panel(console) as panel:
        if prepared.status.notice:
            panel.tell(prepared.status.notice)
        summary = prepared.run(watch=panel.show, tell=panel.tell)
    console.print(summary_table(summary))
    if settings.output.out is not None:
        console.print(f"written to {settings.output.out}", soft_wrap=True)
