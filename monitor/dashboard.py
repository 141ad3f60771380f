"""Serves the dashboard beside a run, in the run's own event loop."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from monitor.app import dashboard_app
from monitor.feed import Feed
from monitor.guard import is_loopback
from monitor.watched import Watched
from pipeline.config import DashboardConfig
from pipeline.errors import UsageError
from pipeline.metrics import EdgeMetrics
from pipeline.threads import Worker
from pipeline.web import listen, parse_address, serve_http
from stages.gate import policy_names
from stages.sinks import Sink
from transport.codecs import Canvas
from transport.embedding import Embedding
from transport.link import EdgeLink

if TYPE_CHECKING:
    from pipeline.run import Run

log = logging.getLogger(__name__)

_VARIABLE = "SAGELINK_DASHBOARD_TOKEN"
_SHORTEST_TOKEN = 12


def check_dashboard(config: DashboardConfig) -> None:
    """Raises UsageError for an address that cannot be had, or that others could reach without a token."""
    if config.address is None:
        return
    host, port = parse_address(config.address, "dashboard.address")
    if not is_loopback(host) and _token(config) is None:
        raise UsageError(
            f"dashboard.address {config.address!r} can be reached from elsewhere; accepted: a loopback address, or "
            f"a token beside it (dashboard.token, or {_VARIABLE} in the environment)"
        )
    listen(host, port).close()


def _token(config: DashboardConfig) -> str | None:
    """What viewers must know. Raises UsageError for one that is too short to be a secret."""
    token = config.token.get_secret_value() if config.token else os.environ.get(_VARIABLE) or None
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise UsageError(f"the dashboard's token has {len(token)} characters; accepted: {_SHORTEST_TOKEN} or more")
    return token


class Dashboard:
    """Of one run: made before it begins, served while it goes on."""

    def __init__(self, run: Run, tell: Callable[[str], None] | None = None) -> None:
        """`tell` is called with the page's address."""
        self._run = run
        self._tell = tell or log.info
        self._feed = Feed(run.models.edge.labels, run.live, run.apart)
        self._metrics = EdgeMetrics(CollectorRegistry(), run.apart)
        self.sinks: list[Sink] = [self._feed, self._metrics]

    @contextlib.asynccontextmanager
    async def serve(self, link: EdgeLink) -> AsyncIterator[str]:
        """Serves while the body runs; yields the page's URL. Raises UsageError when it cannot listen."""
        run = self._run
        config = run.config.dashboard
        assert config.address is not None
        grid = run.models.server.grid
        watched = Watched(
            title=run.source if len(run.captures) == 1 else f"{len(run.captures)} cameras",
            models=f"{run.models.edge.name} and {run.models.server.name}",
            labels=run.models.edge.labels,
            grid=grid,
            canvas=Canvas(grid.side, grid.patch_size, Embedding(*run.models.server.embedding())),
            resize=run.config.capture.resize,
            policies=policy_names(),
            feed=self._feed,
            stats=run.stats,
            control=run.control,
            registry=self._metrics.registry,
            link=link.refusal,
            health=lambda: {capture.name: capture.health() for capture in run.captures},
        )
        host, port = parse_address(config.address, "dashboard.address")
        coder = Worker("dashboard")
        try:
            async with serve_http(dashboard_app(watched, coder, _token(config)), host, port) as (host, port):
                url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
                self._tell(f"dashboard: {url}")
                yield url
        finally:
            coder.close()
