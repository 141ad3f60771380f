"""The `sagelink` command. Heavy imports stay inside the commands, so that --help is quick."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from sagelink.app.adapt import adapt
from sagelink.app.calibrate import calibrate
from sagelink.app.eval import evaluate
from sagelink.app.eval_video import evaluate_video
from sagelink.app.options import (
    MODEL_OPTIONS,
    Assignments,
    ConfigFile,
    EdgeCheckpoint,
    EdgeModel,
    Pair,
    ServerCheckpoint,
    ServerModel,
)
from sagelink.pipeline.errors import SagelinkError, UsageError

log = logging.getLogger(__name__)

app = typer.Typer(
    name="sagelink",
    help="Send the part of a camera frame that a remote model needs, and never more bits than the uplink may carry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Show or check a configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")

_DASHBOARD = "127.0.0.1:8600"
_INTERRUPTED = 130  # typer's exit code for Ctrl-C
# Each option is a key of the configuration; it overrides the file when it is given.
_OPTIONS = MODEL_OPTIONS | {
    "source": "capture.source",
    "uplink": "budget.uplink",
    "window": "budget.window",
    "selector": "select.selector",
    "importance": "select.importance",
    "units": "select.units",
    "gate": "gate.policy",
    "realtime": "capture.realtime",
    "fps": "capture.fps",
    "duration": "capture.duration",
    "max_frames": "capture.max_frames",
    "backend": "capture.backend",
    "resize": "capture.resize",
    "out": "output.out",
    "annotate": "output.annotate",
    "record": "output.record",
    "dashboard_address": "dashboard.address",
    "server": "ship.server",
    "listen": "serve.listen",
    "embedded_broker": "serve.embedded_broker",
    "http": "serve.http",
    "workers": "serve.workers",
    "device": "server.device",
}


@app.command()
def run(
    source: Annotated[
        Optional[str],
        typer.Argument(
            help="Video file, folder of images, webcam (0, /dev/video0), rtsp:// or http(s):// URL, or synthetic:N."
        ),
    ] = None,
    config: ConfigFile = None,
    models: Pair = None,
    edge_model: EdgeModel = None,
    edge_checkpoint: EdgeCheckpoint = None,
    server_model: ServerModel = None,
    server_checkpoint: ServerCheckpoint = None,
    server: Annotated[
        Optional[str],
        typer.Option(
            help="Of a `sagelink serve`: mqtt://host:port of its broker, or webrtc+http://host:port of its own."
        ),
    ] = None,
    uplink: Annotated[Optional[str], typer.Option(help="Budget rate: 64kbit/s, 0.5Mbit/s, unlimited.")] = None,
    window: Annotated[Optional[str], typer.Option(help="Budget window: 1s, 500ms.")] = None,
    selector: Annotated[Optional[str], typer.Option(help="coverage, sage, topk, mmr, fps, uniform or random.")] = None,
    importance: Annotated[Optional[str], typer.Option(help="last, rollout or gradient.")] = None,
    units: Annotated[Optional[int], typer.Option(help="Most units that a frame may send.")] = None,
    gate: Annotated[Optional[str], typer.Option(help="min_entropy, margin, always or never.")] = None,
    realtime: Annotated[Optional[bool], typer.Option("--realtime/--fast", help="Play a file at its own pace.")] = None,
    fps: Annotated[Optional[float], typer.Option(help="Frames a second that are taken; without it, all.")] = None,
    duration: Annotated[Optional[str], typer.Option(help="End after this long: 30s, 5min.")] = None,
    max_frames: Annotated[Optional[int], typer.Option(help="End a camera after this many frames.")] = None,
    backend: Annotated[Optional[str], typer.Option(help="Library that reads cameras: opencv or pyav.")] = None,
    resize: Annotated[Optional[str], typer.Option(help="squash or crop.")] = None,
    out: Annotated[Optional[str], typer.Option(help="Folder for results.jsonl and summary.json.")] = None,
    annotate: Annotated[Optional[str], typer.Option(help="Annotated video, an .mp4 file.")] = None,
    record: Annotated[Optional[str], typer.Option(help="Folder for a recording, see `sagelink replay`.")] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve a web page that shows the run.")] = False,
    dashboard_address: Annotated[
        Optional[str], typer.Option(help=f"The same at another address than {_DASHBOARD}.", metavar="HOST:PORT")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Run a source through the pipeline: one verdict for every captured frame."""
    given = {_OPTIONS[name]: value for name, value in locals().items() if name in _OPTIONS and value is not None}
    if dashboard:
        given.setdefault("dashboard.address", _DASHBOARD)
    from rich.console import Console

    from sagelink.app.run import prepare
    from sagelink.monitor.console_summary import summary_table
    from sagelink.pipeline.config_file import load_config, parse_assignments

    settings = load_config(config, given | parse_assignments(assignments or []))
    prepared = prepare(settings)
    console = Console()
    with prepared.panel(console) as panel:
        summary = prepared.run(watch=panel.show, tell=panel.tell)
    console.print(summary_table(summary))
    if settings.output.out is not None:
        console.print(f"written to {settings.output.out}", highlight=False, soft_wrap=True)


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that `sagelink run --record` wrote.", metavar="DIR")],
    uplink: Annotated[
        Optional[list[str]], typer.Option(help="Budget rates to try instead: 32kbit/s,64kbit/s; may be repeated.")
    ] = None,
    assignments: Assignments = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for what is tried; without it, DIR/replay.")] = None,
) -> None:
    """Run a recording again: as it was, to check it bit for bit, or with other settings, to compare."""
    from sagelink.app.replay import check, compare
    from sagelink.pipeline.config_file import parse_assignments

    changes = parse_assignments(assignments or [])
    rates = [rate.strip() for given in uplink or [] for rate in given.split(",")]
    if rates or changes:
        compare(recording, rates, changes, out or recording / "replay")
    elif out is not None:
        raise UsageError("--out has nothing to hold without --uplink or --set: a check only says whether it holds")
    else:
        check(recording)


@app.command()
def serve(
    config: ConfigFile = None,
    listen: Annotated[
        Optional[str], typer.Option(help="mqtt://host:port of a broker, or webrtc+http://host:port to be called on.")
    ] = None,
    embedded_broker: Annotated[
        Optional[str], typer.Option(help="Run a broker in this process instead, on host:port.")
    ] = None,
    models: Pair = None,
    server_model: ServerModel = None,
    server_checkpoint: ServerCheckpoint = None,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda, cuda:N or mps.")] = None,
    workers: Annotated[Optional[int], typer.Option(help="Batches classified at the same time.")] = None,
    http: Annotated[Optional[str], typer.Option(help="host:port of /healthz, /readyz and /metrics.")] = None,
    assignments: Assignments = None,
) -> None:
    """Classify the evidence of cameras that reach this server over MQTT or WebRTC, until Ctrl-C."""
    given = {_OPTIONS[name]: value for name, value in locals().items() if name in _OPTIONS and value is not None}
    from sagelink.app.serve import serve as serve_until_stopped
    from sagelink.pipeline.config_file import load_config, parse_assignments

    serve_until_stopped(load_config(config, given | parse_assignments(assignments or [])), typer.echo)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs of the demo.")] = Path("runs/demo"),
    frames: Annotated[int, typer.Option(min=1, help="Frames of the synthetic world.")] = 240,
) -> None:
    """Show what a budget costs: the bundled models on the synthetic world, at three budgets."""
    from sagelink.app.demo import run_demo

    run_demo(out, frames)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folder of a run, or of two to compare.", metavar="RUN_DIR...")],
    out: Annotated[Optional[Path], typer.Option(help="The page; without it, report.html in the first folder.")] = None,
) -> None:
    """Write a page about a run, or two side by side: bits, verdicts, latency, accuracy, the frames worth a look."""
    from sagelink.monitor.report import write_report

    if len(folders) > 2:
        raise UsageError(f"{len(folders)} run folders given; accepted: one, or two to compare")
    typer.echo(f"written to {write_report(folders, out)}, with its plots as PNG files beside it")


app.command("eval")(evaluate)
app.command("calibrate")(calibrate)
app.command("adapt")(adapt)
app.command("eval-video")(evaluate_video)


@app.command("models")
def list_models() -> None:
    """List the models that are bundled, cached or can be loaded by name."""
    from sagelink.app.inventory import print_models

    print_models()


@app.command()
def doctor() -> None:
    """Check this machine: versions, OpenCV flavours, threads, cameras, model cache."""
    from sagelink.app.doctor import examine

    if not examine():
        raise typer.Exit(1)


@config_app.command("show")
def config_show(
    config: Annotated[Optional[Path], typer.Argument(help="YAML file; without it, the defaults.")] = None,
    assignments: Assignments = None,
) -> None:
    """Print the whole configuration that a file and overrides amount to."""
    from sagelink.pipeline.config_file import dump_config, load_config, parse_assignments

    typer.echo(dump_config(load_config(config, parse_assignments(assignments or []))), nl=False)


@config_app.command("check")
def config_check(config: Annotated[Path, typer.Argument(help="YAML file.")]) -> None:
    """Say whether a configuration file is valid, and what is wrong with it."""
    from sagelink.app.run import check_names
    from sagelink.pipeline.config_file import load_config

    check_names(load_config(config))
    typer.echo(f"{config}: valid")


def main() -> None:
    """Entry point; exit codes 0 done, 1 failed while running, 2 wrong use or configuration."""
    level = os.environ.get("SAGELINK_LOG", "warning").upper()
    if level not in logging.getLevelNamesMapping():
        level = "WARNING"
    logging.basicConfig(level=level, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    code = _run_app()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is on disk. The interpreter's own end would take torch another second to unload, and is not safe
    # beside a daemon thread that is still inside a camera driver.
    os._exit(code)


def _run_app() -> int:
    try:
        app()
    except SagelinkError as error:
        typer.echo(f"sagelink: {error}", err=True)
        return error.exit_code
    except SystemExit as end:  # how typer ends, whatever happened
        if end.code != _INTERRUPTED:
            return end.code if isinstance(end.code, int) else 0
        typer.echo("sagelink: interrupted before there was a result", err=True)
        return 1
    except Exception as error:
        typer.echo(f"sagelink: internal error, please report it: {error!r} (SAGELINK_LOG=debug shows more)", err=True)
        log.debug("event=internal_error", exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
