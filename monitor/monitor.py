"""Serves the dashboard and publishes to Home Assistant while a run goes on, each if the configuration asks for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from sagelink.models.model_contract import EdgeModel, is_imagenet
from sagelink.models.run_models import RunModels
from sagelink.monitor.dashboard.dashboard import serve_dashboard
from sagelink.monitor.dashboard.run_view import RunView
from sagelink.monitor.dashboard.traffic import DashboardTraffic
from sagelink.monitor.dashboard.verdict_feed import VerdictFeed
from sagelink.monitor.events.feed import EventFeed
from sagelink.monitor.home_assistant.latest_pictures import LatestPictures
from sagelink.monitor.home_assistant.publisher import publish_to_home_assistant
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.recent_frames import RecentFrames
from sagelink.monitor.metrics import EdgeMetrics, GraphCollector, QuotaCollector
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.files.output_files import EVENT_PICTURES
from sagelink.pipeline.graph import Graph
from sagelink.pipeline.types import Verdict
from sagelink.pipeline.urls import host_name
from sagelink.stages.confidence_gate import policy_names
from sagelink.stages.evidence_encoder import canvas_of
from sagelink.stages.run_control import Control
from sagelink.stages.sinks.contract import Sink

log = logging.getLogger(__name__)


class Monitor:
    """Monitors one run: created before it begins, serves while it goes on. Users change the run through `control`."""

    def __init__(
        self,
        config: Config,
        models: RunModels,
        cameras: Sequence[str],
        title: str,
        control: Control,
        now: Callable[[], dict[str, Any]],
        live: bool,
        own_budget_cameras: Collection[str] = (),
        report: Callable[[str], None] | None = None,
        open_labels: Callable[[RecentFrames], LabelDesks] | None = None,
        events: EventFeed | None = None,
        ledger: WireLedger | None = None,
    ) -> None:
        """`now` returns the state of the run as plain JSON values; `report` receives the dashboard's address.
        `open_labels` makes what the page needs for labels, where there is a page. `ledger`: the budget of a live run,
        which may pay for the dashboard."""
        self._config = config
        self._models = models
        self._cameras = cameras
        self._title = title
        self._control = control
        self._traffic = DashboardTraffic(ledger if config.dashboard.charge else None)
        self._now = now
        self._report = report or log.info
        self._events = events
        self._recent: RecentFrames | None = None
        self._labels: LabelDesks | None = None
        if open_labels is not None and config.dashboard.address:
            self._recent = RecentFrames(partial(own_labels, models.edge))
            self._labels = open_labels(self._recent)
        self._feed = VerdictFeed(models.edge.labels, live, own_budget_cameras)
        self._metrics = EdgeMetrics(CollectorRegistry(), own_budget_cameras)
        self.count_recovered = self._metrics.count_recovered
        self.sinks: list[Sink] = [self._feed, self._metrics] if config.dashboard.address else []
        self._pictures: LatestPictures | None = None
        if config.home_assistant.broker and config.home_assistant.pictures:
            self._pictures = LatestPictures(config.home_assistant.every)
            self.sinks.append(self._pictures)

    @contextlib.asynccontextmanager
    async def serving(self, graph: Graph) -> AsyncIterator[None]:
        """Serves while the body runs. Raises UsageError when an address cannot be listened on."""
        config = self._config
        view = self._view()
        self._metrics.registry.register(GraphCollector(graph))
        self._metrics.registry.register(QuotaCollector(self._now))
        async with contextlib.AsyncExitStack() as stack:
            if self._labels is not None:
                stack.callback(self._labels.close)
            if config.dashboard.address:
                await stack.enter_async_context(serve_dashboard(config.dashboard, view, self._report, self._traffic))
            if config.home_assistant.broker:
                node = config.mqtt.node or host_name()
                await stack.enter_async_context(
                    publish_to_home_assistant(
                        config, node, self._cameras, view.now, self._control, self._events, self._pictures
                    )
                )
            yield

    def _view(self) -> RunView:
        models, out = self._models, self._config.output.out
        return RunView(
            title=self._title,
            models=f"{models.edge.name} and {models.server.name}",
            grid=models.server.grid,
            canvas=canvas_of(models.server),
            resize=self._config.capture.resize,
            policies=policy_names(),
            feed=self._feed,
            control=self._control,
            registry=self._metrics.registry,
            now=lambda: self._now() | {"dashboard": self._traffic.state()},
            labels=self._labels,
            recent=self._recent,
            events=self._events,
            event_pictures=None if out is None else out / EVENT_PICTURES,
        )


def own_labels(edge: EdgeModel, verdict: Verdict) -> tuple[str, ...] | None:
    """The classes of a verdict by class id; None where they are ImageNet's, which say nothing about the user's."""
    return None if verdict.taught is None and is_imagenet(edge) else verdict.labels(edge.labels)
