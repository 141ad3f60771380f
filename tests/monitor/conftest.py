"""Fixtures: the view of a run for the dashboard, without a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sagelink.models.unit_grid import UnitGrid
from sagelink.monitor.dashboard.run_view import RunView
from sagelink.monitor.dashboard.traffic import DashboardTraffic
from sagelink.monitor.dashboard.verdict_feed import VerdictFeed
from sagelink.monitor.freshness import LinkWatch
from sagelink.monitor.live_stats import LiveStats
from sagelink.monitor.metrics import EdgeMetrics
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.threads import Worker
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.run_control import Control
from tests.fakes import CANVAS, PATCH, SIDE
from tests.monitor.dashboard.test_verdict_feed import LABELS, verdict_of

HEALTH = {"camera": None, "gate": {"state": "backoff", "fault": "timeout"}}


@pytest.fixture
def watched() -> RunView:
    stats, feed, metrics = LiveStats(), VerdictFeed(LABELS, live=False), EdgeMetrics(CollectorRegistry())
    control = Control(UplinkBudget(64_000, 1.0), Gate(GateConfig()))
    for seq in range(3):
        for sink in (stats, feed, metrics):
            sink.write(verdict_of(seq, sent=seq > 0))
    link = LinkWatch()
    link.follow(lambda: None)

    def now() -> dict[str, Any]:
        snapshot = stats.snapshot(LABELS, HEALTH)
        dashboard = DashboardTraffic().state()
        return (
            snapshot
            | {"control": control.state(), "notice": None, "quotas": [], "dashboard": dashboard, "trust": {}}
            | {"events": {"open": 0, "actions": 0}}
            | link.state(snapshot)
        )

    return RunView(
        title="clip.mp4",
        models="a and b",
        grid=UnitGrid(SIDE * PATCH, PATCH, "bicubic", 1.0),
        canvas=CANVAS,
        resize="squash",
        policies=["min_entropy", "always"],
        feed=feed,
        control=control,
        registry=metrics.registry,
        now=now,
    )


@pytest.fixture
def coder() -> Iterator[Worker]:
    coder = Worker("test-dashboard")
    yield coder
    coder.close()
