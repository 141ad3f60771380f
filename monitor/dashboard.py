"""Serves the dashboard of a run, in the event loop of the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable

from sagelink.monitor.dashboard_routes import dashboard_app
from sagelink.monitor.run_view import RunView
from sagelink.net.http import is_loopback, listen, parse_address, serve_http
from sagelink.pipeline.config import DashboardConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.threads import Worker

_TOKEN_VARIABLE = "SAGELINK_DASHBOARD_TOKEN"  # noqa: S105 (its name)
_MIN_TOKEN = 12


def check_dashboard(config: DashboardConfig) -> None:
    """Raises UsageError for an address that cannot be listened on, or that others can reach without a token."""
    if config.address is None:
        return
    host, port = parse_address(config.address, "dashboard.address")
    if not is_loopback(host) and _token(config) is None:
        raise UsageError(
            f"dashboard.address {config.address!r} can be reached by other machines; accepted: a loopback address, or "
            f"a token (dashboard.token, or {_TOKEN_VARIABLE} in the environment)"
        )
    listen(host, port).close()


def _token(config: DashboardConfig) -> str | None:
    """The token that viewers need; None without one. Raises UsageError for one that is too short to be a secret."""
    token = config.token.get_secret_value() if config.token else os.environ.get(_TOKEN_VARIABLE) or None
    if token is not None and len(token) < _MIN_TOKEN:
        raise UsageError(f"the dashboard's token has {len(token)} characters; accepted: {_MIN_TOKEN} or more")
    return token


@contextlib.asynccontextmanager
async def serve_dashboard(config: DashboardConfig, run: RunView, report: Callable[[str], None]) -> AsyncIterator[str]:
    """Serves while the body runs; yields and reports the URL of the page. Raises UsageError when it cannot listen."""
    assert config.address is not None
    host, port = parse_address(config.address, "dashboard.address")
    encoder = Worker("dashboard")
    try:
        async with serve_http(dashboard_app(run, encoder, _token(config)), host, port) as (host, port):
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
            report(f"dashboard: {url}")
            yield url
    finally:
        encoder.close()
