"""Serves the dashboard of a run, in the event loop of the run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable

from sagelink.monitor.dashboard.routes import dashboard_app, label_app
from sagelink.monitor.dashboard.run_view import RunView
from sagelink.monitor.dashboard.traffic import DashboardTraffic
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.net.access_guard import require_secret
from sagelink.net.http import is_loopback, listen, page_url, parse_address, serve_http
from sagelink.pipeline.config.output import DashboardConfig
from sagelink.pipeline.credentials import check_token_length
from sagelink.pipeline.tasks import background
from sagelink.pipeline.threads import Worker

log = logging.getLogger(__name__)

_SAMPLE_S = 0.25
# For a page that other machines can see.
_COSTS = " (a viewer on another machine costs up to 1 Mbit/s, outside of the budget: see dashboard.charge)"
_CHARGED = " (viewers on other machines are charged to the uplink budget)"
_TOKEN_VARIABLE = "SAGELINK_DASHBOARD_TOKEN"  # noqa: S105 (its name)


def check_dashboard(config: DashboardConfig) -> None:
    """Raises UsageError for an address that cannot be listened on, or that others can reach without a token."""
    if config.address is None:
        return
    host, port = parse_address(config.address, "dashboard.address")
    require_secret(
        host,
        dashboard_token(config),
        "token",
        f"dashboard.address {config.address!r}",
        f"Set dashboard.token, or {_TOKEN_VARIABLE} in the environment",
    )
    listen(host, port).close()


def dashboard_token(config: DashboardConfig) -> str | None:
    """The token that viewers need; None without one. Raises UsageError for one that is too short to be a secret."""
    token = config.token.get_secret_value() if config.token else os.environ.get(_TOKEN_VARIABLE) or None
    if token is not None:
        check_token_length(token, "dashboard")
    return token


@contextlib.asynccontextmanager
async def serve_dashboard(
    config: DashboardConfig, run: RunView, report: Callable[[str], None], traffic: DashboardTraffic
) -> AsyncIterator[str]:
    """Serves while the body runs; yields and reports the URL of the page. `traffic` counts what it sends.

    Raises UsageError when it cannot listen."""
    assert config.address is not None
    host, port = parse_address(config.address, "dashboard.address")
    encoder = Worker("dashboard")
    try:
        app = traffic.around(dashboard_app(run, encoder, dashboard_token(config), pictures=config.pictures))
        async with serve_http(app, host, port) as (host, port), background(_sample_frames(run, encoder)):
            url = page_url(host, port)
            report(f"dashboard: {url}{'' if is_loopback(host) else _COSTS if not config.charge else _CHARGED}")
            yield url
    finally:
        encoder.close()


@contextlib.asynccontextmanager
async def serve_labels(config: DashboardConfig, desks: LabelDesks, report: Callable[[str], None]) -> AsyncIterator[str]:
    """Serves the labelling page alone while the body runs; as `serve_dashboard`."""
    assert config.address is not None
    host, port = parse_address(config.address, "dashboard.address")
    worker = Worker("labels")
    try:
        async with serve_http(label_app(desks, worker, dashboard_token(config)), host, port) as (host, port):
            url = page_url(host, port)
            report(f"label on {url} (Ctrl-C ends)")
            yield url
    finally:
        worker.close()


async def _sample_frames(run: RunView, encoder: Worker) -> None:
    """Stores a full frame of each camera from time to time, for labels."""
    failed = False
    while run.recent is not None:
        await asyncio.sleep(_SAMPLE_S)
        verdicts = [verdict for _, verdict in run.feed.latest().values()]
        try:
            await encoder.call(run.recent.sample, verdicts)
        except Exception as error:  # labels must not end a run
            if not failed:
                log.warning("event=frames_not_stored error=%r", error)
            failed = True
