"""What watches a run and may change it: the dashboard and Home Assistant, each where the configuration asks for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from sagelink.monitor.dashboard import serve_dashboard
from sagelink.monitor.metrics import EdgeMetrics
from sagelink.monitor.run_view import RunView
from sagelink.monitor.verdict_feed import VerdictFeed
from sagelink.stages.encode import canvas_of
from sagelink.stages.gate import policy_names
from sagelink.stages.sinks import Sink
from sagelink.transport.link import EdgeLink

if TYPE_CHECKING:
    from sagelink.app.run import Run

log = logging.getLogger(__name__)


class Monitor:
    """Of one run: made before it begins, at work while it goes on."""

    def __init__(self, run: Run, tell: Callable[[str], None] | None = None) -> None:
        """`tell` is called with the page's address."""
        self._run = run
        self._tell = tell or log.info
        self._feed = VerdictFeed(run.models.edge.labels, run.live, run.apart)
        self._metrics = EdgeMetrics(CollectorRegistry(), run.apart)
        self.count_mended = self._metrics.count_mended
        self.sinks: list[Sink] = [self._feed, self._metrics] if run.config.dashboard.address else []

    @contextlib.asynccontextmanager
    async def beside(self, link: EdgeLink) -> AsyncIterator[None]:
        """At work while the body runs. Raises UsageError when it cannot listen."""
        config = self._run.config
        watched = self._watched(link)
        async with contextlib.AsyncExitStack() as stack:
            if config.dashboard.address:
                await stack.enter_async_context(serve_dashboard(config.dashboard, watched, self._tell))
            if config.home_assistant.broker:
                from sagelink.app.edge_link import host_name
                from sagelink.monitor.home_assistant import publish_to_home_assistant

                node, cameras = config.mqtt.node or host_name(), [each.name for each in self._run.captures]
                await stack.enter_async_context(
                    publish_to_home_assistant(config, node, cameras, watched.now, watched.control)
                )
            yield

    def _watched(self, link: EdgeLink) -> RunView:
        run = self._run
        return RunView(
            title=run.title,
            models=f"{run.models.edge.name} and {run.models.server.name}",
            grid=run.models.server.grid,
            canvas=canvas_of(run.models.server),
            resize=run.config.capture.resize,
            policies=policy_names(),
            feed=self._feed,
            control=run.control,
            registry=self._metrics.registry,
            snapshot=run.now,
            link=link.refusal,
        )
