"""`sagelink label`: opens the labelling page over recorded frames: of a recording, a video, or a folder of pictures.

A thread reads the source once, scores frames with the edge model, and stores those that may be worth a label. With a
new head, the stored frames are scored again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.command_line import DASHBOARD
from sagelink.app.options import ModelOptions, with_model_options
from sagelink.pipeline.errors import UsageError

if TYPE_CHECKING:
    from sagelink.monitor.labelling.desks import LabelDesks
    from sagelink.pipeline.config.output import DashboardConfig


@with_model_options
def label(
    source: Annotated[
        Path, typer.Argument(help="Folder of `sagelink run --record`, video, or folder of pictures.", metavar="SOURCE")
    ],
    labels: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Folder for the labelled pictures (default: labels).")
    ] = None,
    dashboard: Annotated[
        Optional[str], typer.Option(metavar="HOST:PORT", help=f"Address of the page (default: {DASHBOARD}).")
    ] = None,
    *,
    options: ModelOptions,
) -> None:
    """Label recorded frames on a web page, and teach from them."""
    settings = options.load({"labels.folder": labels, "dashboard.address": dashboard})
    from sagelink.app.commands.recorded_frames import RecordedFrames, open_frames
    from sagelink.app.commands.recorded_labels import recorded_labels
    from sagelink.models import loading
    from sagelink.models.heads.apply import check_side, edge_with_head
    from sagelink.models.heads.further import NamedHead
    from sagelink.models.heads.head import read_head
    from sagelink.monitor.dashboard.dashboard import check_dashboard

    if settings.dashboard.address is None:
        address = settings.dashboard.model_copy(update={"address": DASHBOARD})
        settings = settings.model_copy(update={"dashboard": address})
    if settings.labels.folder is None:
        chosen = settings.labels.model_copy(update={"folder": Path("labels")})
        settings = settings.model_copy(update={"labels": chosen})
    check_dashboard(settings.dashboard)
    place = settings.labels.folder
    assert place is not None
    _check_apart(source, place)
    reader = open_frames(source)
    edge = loading.load(settings.edge, settings.edge_model)
    if not settings.ship.server:  # teaching from the page needs the server model too
        loading.outline(settings.server, settings.server_model, edge.labels)
    if settings.head is not None:
        edge = edge_with_head(read_head(settings.head), edge)
    further = []
    for name, path in settings.heads.items():
        head = read_head(path)
        check_side(head.edge, edge, "edge")
        further.append(NamedHead.of(name, head))
    frames = RecordedFrames(reader, edge, settings.capture.resize, further=further)
    desks = recorded_labels(settings, place, session_of(source), frames)
    frames.begin()
    try:
        asyncio.run(_serve(settings.dashboard, desks, typer.echo))
    finally:
        desks.close()
        frames.close()
    for name in ("", *settings.heads):
        folder = desks.of(name).folder
        out = f"{name or 'site'}.head"
        typer.echo(
            f"{sum(folder.counts().values())} labelled pictures in {folder.folder}; teach with: sagelink teach "
            f"{folder.folder} --out {out}"
        )


async def _serve(config: DashboardConfig, desks: LabelDesks, report: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C."""
    from sagelink.monitor.dashboard.dashboard import serve_labels
    from sagelink.pipeline.tasks import on_signals

    stopped = asyncio.Event()
    on_signals(stopped.set)
    async with serve_labels(config, desks, report):
        await stopped.wait()


def session_of(source: Path) -> str:
    """A name for the frames of a source: the same for the same place, so that earlier labels are found again."""
    digest = hashlib.sha256(str(source.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{source.resolve().name}-{digest}"


def _check_apart(source: Path, labels: Path) -> None:
    inside, outside = source.resolve(), labels.resolve()
    if source.is_dir() and (outside == inside or inside in outside.parents):
        raise UsageError(f"--labels {str(labels)!r} lies in the source {str(source)!r}; accepted: a folder outside it")
