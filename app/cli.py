"""The `sagelink` command: reads arguments, runs one subcommand, and ends with its exit code.

Heavy imports stay inside the commands, so that --help is quick.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from sagelink.app.command_line import CommandWithDashboard, show_help, show_version, whole_number
from sagelink.app.commands.adapt import adapt
from sagelink.app.commands.budget import budget_app
from sagelink.app.commands.calibrate import calibrate
from sagelink.app.commands.config import config_app
from sagelink.app.commands.eval import evaluate
from sagelink.app.commands.eval_video import evaluate_video
from sagelink.app.commands.head import head_app
from sagelink.app.commands.label import label
from sagelink.app.commands.pack import pack
from sagelink.app.commands.plan import plan
from sagelink.app.commands.run import run
from sagelink.app.commands.server import console, serve
from sagelink.app.commands.teach import teach
from sagelink.app.missing_package import missing_package
from sagelink.app.options import HeadOption, SetOption, head_settings
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.log_lines import TerminalLog
from sagelink.pipeline.text import safe_text

log = logging.getLogger(__name__)

app = typer.Typer(
    name="sagelink",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
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


app.command(cls=CommandWithDashboard)(run)


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
    from sagelink.app.commands.replay import check, compare
    from sagelink.app.replay.recorded_config import changes_results
    from sagelink.pipeline.config.file import parse_assignments

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


app.command()(serve)
app.command()(console)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the runs of the demo.")] = Path("runs/demo"),
    frames: Annotated[int, typer.Option(parser=whole_number(1), metavar="N", help="Number of synthetic frames.")] = 240,
) -> None:
    """Show how a budget changes accuracy, on synthetic frames."""
    from sagelink.app.commands.demo import run_demo

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
    from sagelink.monitor.report.report import write_report

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
app.command("pack")(pack)


@app.command("models")
def list_models(
    heads: Annotated[
        Optional[list[Path]], typer.Argument(help="Head files, or folders of them, to describe.", metavar="[HEAD ...]")
    ] = None,
) -> None:
    """List models: bundled, cached, and available by name. With head files or folders: describe these heads."""
    from sagelink.app.commands.list_models import print_heads, print_models

    if heads:
        print_heads(heads)
    else:
        print_models()


@app.command()
def doctor() -> None:
    """Check this machine: versions, OpenCV, cameras, models."""
    from sagelink.app.commands.doctor import print_diagnosis

    if not print_diagnosis():
        raise typer.Exit(1)


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
        if missing := missing_package(error):
            typer.echo(f"sagelink: {missing}", err=True)
            return missing.exit_code
        message = f"sagelink: internal error, please report it: {error!r} (SAGELINK_LOG=debug shows more)"
        typer.echo(safe_text(message), err=True)
        log.debug("event=internal_error", exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
