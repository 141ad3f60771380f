"""The `sagelink` command: reads arguments, runs one subcommand, and ends with its exit code.

Heavy imports stay inside the commands, so that --help is quick.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.adapt import adapt
from sagelink.app.budget_command import budget_app
from sagelink.app.calibrate import calibrate
from sagelink.app.command_line import DASHBOARD, CommandWithDashboard, show_help, show_version, whole_number
from sagelink.app.eval import evaluate
from sagelink.app.eval_video import evaluate_video
from sagelink.app.head import head_app
from sagelink.app.label import label
from sagelink.app.options import (
    ConfigOption,
    HeadOption,
    ModelOptions,
    PairOption,
    ServerCheckpointOption,
    ServerModelOption,
    SetOption,
    head_settings,
    load_settings,
    with_model_options,
)
from sagelink.app.plan import plan
from sagelink.app.teach import teach
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.log_lines import TerminalLog
from sagelink.pipeline.text import safe_text

if TYPE_CHECKING:
    from sagelink.pipeline.config import Config

log = logging.getLogger(__name__)

app = typer.Typer(
    name="sagelink",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Show or check a configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(head_app, name="head")
app.add_typer(budget_app, name="budget")

_INTERRUPTED = 130  # typer's exit code for Ctrl-C


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print the version, and end.")
    ] = False,
) -> None:
    """Send the part of a camera frame that a remote model needs, and never more bits than the uplink may carry.

    To begin: sagelink demo; then sagelink run clip.mp4 --uplink 64kbit/s"""


@app.command(cls=CommandWithDashboard)
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
            help="Address of a `sagelink serve`: mqtt://host:port of its broker, or its own webrtc+http://host:port.",
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
    from sagelink.app.run import prepare
    from sagelink.monitor.console_summary import summary_table
    from sagelink.monitor.terminal import SafeConsole

    prepared = prepare(settings)
    console = SafeConsole()
    with prepared.panel(console) as panel:
        if prepared.notice:
            panel.tell(prepared.notice)
        summary = prepared.run(watch=panel.show, tell=panel.tell)
    console.print(summary_table(summary))
    if settings.output.out is not None:
        console.print(f"written to {settings.output.out}", soft_wrap=True)


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that `sagelink run --record` wrote.", metavar="DIR")],
    uplink: Annotated[
        Optional[list[str]],
        typer.Option(metavar="RATE", help="Other budget rates to try: 32kbit/s,64kbit/s; may be repeated."),
    ] = None,
    quota: Annotated[
        Optional[list[str]],
        typer.Option(metavar="BYTES/PERIOD", help="Another quota to try: 20MB/day or 5MB/24h; may be repeated."),
    ] = None,
    pace: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Another pace to try: adaptive, even or as-needed.")
    ] = None,
    head: HeadOption = None,
    assignments: SetOption = None,
    out: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Folder for these runs (default: DIR/replay).")
    ] = None,
) -> None:
    """Run a recording again, to check it or to compare settings.

    Unchanged, it must give the same bits. With other settings, the results are compared with the recording."""
    from sagelink.app.recorded_config import changes_results
    from sagelink.app.replay import check, compare
    from sagelink.pipeline.config_file import parse_assignments

    limits = {"budget.quotas": quota or None, "budget.pace": pace}
    changes = head_settings(head or []) | {key: value for key, value in limits.items() if value is not None}
    changes |= parse_assignments(assignments or [])
    rates = [rate.strip() for given in uplink or [] for rate in given.split(",")]
    if rates or (changes and changes_results(recording, changes)):
        compare(recording, rates, changes, out or recording / "replay")
    elif out is not None:
        raise UsageError("--out has nothing to hold without --uplink, --quota or --set: a check writes no files")
    else:
        check(recording, files=changes)


@app.command()
def serve(
    config: ConfigOption = None,
    listen: Annotated[
        Optional[str],
        typer.Option(
            metavar="URL",
            help="Where cameras reach this server: mqtt://host:port of a broker, or its own webrtc+http://host:port.",
        ),
    ] = None,
    embedded_broker: Annotated[
        Optional[str],
        typer.Option(metavar="HOST:PORT", help="Run a broker in this process instead, on this host:port."),
    ] = None,
    models: PairOption = None,
    server_model: ServerModelOption = None,
    server_checkpoint: ServerCheckpointOption = None,
    device: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Device of the model: cpu, cuda, cuda:N or mps.")
    ] = None,
    workers: Annotated[
        Optional[str], typer.Option(metavar="N", help="Batches that are classified at the same time.")
    ] = None,
    http: Annotated[
        Optional[str], typer.Option(metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics on this host:port.")
    ] = None,
    console: Annotated[
        Optional[str],
        typer.Option(metavar="HOST:PORT", help="With WebRTC: serve a page of all cameras there."),
    ] = None,
    assignments: SetOption = None,
) -> None:
    """Classify what cameras send over MQTT or WebRTC, until Ctrl-C."""
    given = {
        "serve.listen": listen,
        "serve.embedded_broker": embedded_broker,
        "models": models,
        "server.model": server_model,
        "server.checkpoint": server_checkpoint,
        "server.device": device,
        "serve.workers": workers,
        "serve.http": http,
        "serve.console": console,
    }
    settings = load_settings(config, given, assignments)
    from sagelink.app.serve import serve as serve_until_stopped

    serve_until_stopped(settings, typer.echo)


@app.command()
def console(
    broker: Annotated[
        Optional[str],
        typer.Argument(
            metavar="URL", help="The broker, mqtt://host:port or mqtts://host:port (default: serve.listen)."
        ),
    ] = None,
    config: ConfigOption = None,
    http: Annotated[
        Optional[str], typer.Option(metavar="HOST:PORT", help="Address of the page (default: 127.0.0.1:8700).")
    ] = None,
    store: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Folder for evidence, answers and events, to search them.")
    ] = None,
    models: PairOption = None,
    assignments: SetOption = None,
) -> None:
    """Show all cameras of a broker on a web page, until Ctrl-C.

    It costs no uplink bit: it shows what travels between cameras and servers anyway."""
    settings = load_settings(config, {"console.http": http, "console.store": store, "models": models}, assignments)
    url = broker or settings.serve.listen
    if not url:
        raise UsageError("no broker given; accepted: mqtt://host:port, or serve.listen in the configuration")
    from sagelink.app.console import console as serve_console

    serve_console(settings, url, typer.echo)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the runs of the demo.")] = Path("runs/demo"),
    frames: Annotated[int, typer.Option(parser=whole_number(1), metavar="N", help="Number of synthetic frames.")] = 240,
) -> None:
    """Show how a budget changes accuracy, on synthetic frames."""
    from sagelink.app.demo import run_demo

    run_demo(out, frames)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folder of a run, or two folders to compare.", metavar="RUN_DIR")
    ],
    out: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="HTML page to write (default: report.html in the first folder)."),
    ] = None,
) -> None:
    """Write a web page about a run, or two side by side.

    It shows bits, verdicts, latency, accuracy and notable frames."""
    from sagelink.monitor.report import write_report

    if len(folders) > 2:
        raise UsageError(f"{len(folders)} run folders given; accepted: one, or two to compare")
    typer.echo(safe_text(f"written to {write_report(folders, out)}, with its plots as PNG files beside it"))


app.command("eval")(evaluate)
app.command("calibrate")(calibrate)
app.command("adapt")(adapt)
app.command("teach")(teach)
app.command("label")(label)
app.command("eval-video")(evaluate_video)
app.command("plan")(plan)


@app.command("models")
def list_models(
    heads: Annotated[
        Optional[list[Path]], typer.Argument(help="Head files, or folders of them, to describe.", metavar="[HEAD ...]")
    ] = None,
) -> None:
    """List models: bundled, cached, and available by name. With head files or folders: describe these heads."""
    from sagelink.app.list_models import print_heads, print_models

    if heads:
        print_heads(heads)
    else:
        print_models()


@app.command()
def doctor() -> None:
    """Check this machine: versions, OpenCV, cameras, models."""
    from sagelink.app.doctor import print_diagnosis

    if not print_diagnosis():
        raise typer.Exit(1)


@config_app.command("show")
def config_show(
    config: Annotated[Optional[Path], typer.Argument(metavar="FILE", help="YAML file (default: none).")] = None,
    assignments: SetOption = None,
) -> None:
    """Print the whole configuration: defaults, file, overrides."""
    from sagelink.pipeline.config_file import dump_config

    typer.echo(dump_config(load_settings(config, {}, assignments)), nl=False)


@config_app.command("check")
def config_check(config: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file.")]) -> None:
    """Check a configuration file, and print its errors."""
    from sagelink.app.run import check_names
    from sagelink.pipeline.config_file import load_config

    check_names(load_config(config))
    typer.echo(safe_text(f"{config}: valid"))


app.command("help")(show_help)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed while running, 2 wrong use or configuration."""
    level = os.environ.get("SAGELINK_LOG", "warning").upper()
    if level not in logging.getLevelNamesMapping():
        level = "WARNING"
    logging.basicConfig(level=level, handlers=[TerminalLog()])
    for stream in (sys.stdout, sys.stderr):  # the name of a file may hold bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = _run_app()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is on disk. A normal exit takes another second to unload torch, and it is not safe while a daemon
    # thread is still inside a camera driver.
    os._exit(code)


def _run_app() -> int:
    try:
        app()
    except SagelinkError as error:
        typer.echo(safe_text(f"sagelink: {error}"), err=True)
        return error.exit_code
    except SystemExit as end:  # typer always ends like this
        if end.code != _INTERRUPTED:
            return end.code if isinstance(end.code, int) else 0
        typer.echo("sagelink: interrupted before there was a result", err=True)
        return 1
    except Exception as error:
        message = f"sagelink: internal error, please report it: {error!r} (SAGELINK_LOG=debug shows more)"
        typer.echo(safe_text(message), err=True)
        log.debug("event=internal_error", exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
