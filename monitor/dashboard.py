"""Serves the dashboard of a run, in the event loop of the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable

from sagelink.monitor.dashboard_routes import dashboard_app
from sagelink.monitor.dashboard_traffic import DashboardTraffic
from sagelink.monitor.run_view import RunView
from sagelink.net.access_guard import require_secret
from sagelink.net.http import is_loopback, listen, parse_address, serve_http
from sagelink.pipeline.config import DashboardConfig
from sagelink.pipeline.credentials import check_token_length
from sagelink.pipeline.threads import Worker

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
        _token(config),
        "token",
        f"dashboard.address {config.address!r}",
        f"Set dashboard.token, or {_TOKEN_VARIABLE} in the environment",
    )
    listen(host, port).close()


def _token(config: DashboardConfig) -> str | None:
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
        app = dashboard_app(run, encoder, _token(config), pictures=config.pictures)
        async with serve_http(traffic.around(app), host, port) as (host, port):
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
            report(f"dashboard: {url}{'' if is_loopback(host) else _COSTS if not config.charge else _CHARGED}")
            yield url
    finally:
        encoder.close()
