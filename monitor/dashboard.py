"""Serves the dashboard beside a run, in the run's own event loop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable

from sagelink.monitor.dashboard_routes import dashboard_app
from sagelink.monitor.run_view import RunView
from sagelink.net.guard import require_secret
from sagelink.net.http import listen, parse_address, serve_http
from sagelink.pipeline.config import DashboardConfig
from sagelink.pipeline.credentials import check_token_length
from sagelink.pipeline.threads import Worker

_VARIABLE = "SAGELINK_DASHBOARD_TOKEN"


def check_dashboard(config: DashboardConfig) -> None:
    """Raises UsageError for an address that cannot be had, or that others could reach without a token."""
    if config.address is None:
        return
    host, port = parse_address(config.address, "dashboard.address")
    require_secret(
        host,
        _token(config),
        "token",
        f"dashboard.address {config.address!r}",
        f"Set dashboard.token, or {_VARIABLE} in the environment",
    )
    listen(host, port).close()


def _token(config: DashboardConfig) -> str | None:
    """What viewers must know. Raises UsageError for one that is too short to be a secret."""
    token = config.token.get_secret_value() if config.token else os.environ.get(_VARIABLE) or None
    if token is not None:
        check_token_length(token, "dashboard")
    return token


@contextlib.asynccontextmanager
async def serve_dashboard(config: DashboardConfig, watched: RunView, tell: Callable[[str], None]) -> AsyncIterator[str]:
    """Serves while the body runs; yields the page's URL, and tells it. Raises UsageError when it cannot listen."""
    assert config.address is not None
    host, port = parse_address(config.address, "dashboard.address")
    coder = Worker("dashboard")
    try:
        async with serve_http(dashboard_app(watched, coder, _token(config)), host, port) as (host, port):
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
            tell(f"dashboard: {url}")
            yield url
    finally:
        coder.close()
