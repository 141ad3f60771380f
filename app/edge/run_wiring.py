"""Connects the parts of a run when it starts: makes its recorder, its monitor, its link and the parts of its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

from sagelink.app.edge.run_parts import RunParts, own_budget_cameras
from sagelink.app.edge.run_status import RunStatus

if TYPE_CHECKING:
    from sagelink.app.edge.graph import EdgeParts
    from sagelink.monitor.monitor import Monitor
    from sagelink.stages.sinks.contract import Sink
    from sagelink.stages.verdict_recorder import Recorder
    from sagelink.transport.link import EdgeLink


def make_recorder(parts: RunParts, sinks: Sequence[Sink]) -> Recorder:
    """Its sinks get each verdict, smoothed where scenes are tracked."""
    from sagelink.stages.scene_tracker import scene_config
    from sagelink.stages.small_pictures import with_small_picture
    from sagelink.stages.verdict_recorder import Recorder
    from sagelink.stages.verdict_smoothing import Smoother

    output = parts.config.output
    smoother = Smoother(scene_config(parts.config.video, parts.config.head is not None), parts.trusts)
    if parts.live and output.record is None and output.annotate is None:
        return Recorder(sinks, smoother.smooth, with_small_picture)
    return Recorder(sinks, smoother.smooth)


def make_monitor(parts: RunParts, status: RunStatus, tell: Callable[[str], None] | None) -> Monitor:
    """The dashboard, the metrics and Home Assistant. `tell` receives messages for the user."""
    from sagelink.app.edge.labels import run_labels
    from sagelink.monitor.monitor import Monitor

    return Monitor(
        parts.config,
        parts.models,
        [capture.name for capture in parts.captures],
        status.title,
        parts.control,
        status.now,
        parts.live,
        own_budget_cameras(parts.config),
        tell,
        partial(run_labels, parts.config, parts.heads),
        parts.events.feed if parts.config.events.rules else None,
        parts.wire_ledger if parts.live else None,
    )


def graph_parts(parts: RunParts, recorder: Recorder, link: EdgeLink) -> EdgeParts:
    """What the stage graph is assembled from."""
    from sagelink.app.edge.graph import EdgeParts

    return EdgeParts(
        config=parts.config,
        models=parts.models,
        captures=parts.captures,
        accounts=parts.budgets.accounts,
        gate=parts.gate,
        encoder_for=parts.encoder_for,
        heads=parts.heads,
        fuse=parts.fuse,
        recorder=recorder,
        link=link,
        clock=parts.clock,
        alerts=parts.events.charges,
        trusts=parts.trusts,
        script=parts.script,
        reserve=parts.budgets.ledger.reserve if parts.budgets.ledger else None,
    )


def open_link(parts: RunParts, on_recovered: Callable[[str], None]) -> AbstractAsyncContextManager[EdgeLink]:
    """The link to the server; in an exact replay, to its recorded answers."""
    from sagelink.app.edge.link import edge_link

    if parts.script is not None:
        return parts.script.link
    cameras = [*parts.budgets.accounts]
    wire_ledger = parts.wire_ledger if parts.live else None  # a replay's budget knows only stream time
    return edge_link(
        parts.config,
        parts.models,
        parts.heads,
        cameras,
        wire_ledger,
        parts.control,
        on_recovered,
        partial(_digest, parts),
    )


def _digest(parts: RunParts, camera: str) -> bytes:
    from sagelink.app.edge.console_digest import camera_digest

    health = {capture.name: capture.health() for capture in parts.captures}
    return camera_digest(parts.stats, parts.control, health[camera], camera, parts.budgets.quota_states())
