"""A run for the dashboard to show, without its pipeline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from models.zoo import UnitGrid
from monitor.feed import Feed
from monitor.watched import Watched
from pipeline.budget import UplinkBudget
from pipeline.config import GateConfig
from pipeline.control import Control
from pipeline.metrics import EdgeMetrics
from pipeline.stats import LiveStats
from pipeline.threads import Worker
from stages.gate import Gate
from tests.fakes import CANVAS, PATCH, SIDE
from tests.monitor.test_feed import LABELS, verdict_of

HEALTH = {"camera": None, "gate": {"state": "backoff", "fault": "timeout"}}


@pytest.fixture
def watched() -> Watched:
    stats, feed, metrics = LiveStats(), Feed(LABELS, live=False), EdgeMetrics(CollectorRegistry())
    control = Control(UplinkBudget(64_000, 1.0), Gate(GateConfig()))
    for seq in range(3):
        for sink in (stats, feed, metrics):
            sink.write(verdict_of(seq, sent=seq > 0))
    return Watched(
        title="clip.mp4",
        models="a and b",
        grid=UnitGrid(SIDE * PATCH, PATCH, "bicubic", 1.0),
        canvas=CANVAS,
        resize="squash",
        policies=["min_entropy", "always"],
        feed=feed,
        control=control,
        registry=metrics.registry,
        snapshot=lambda: stats.snapshot(LABELS, HEALTH) | {"control": control.state()},
        link=lambda: None,
    )


@pytest.fixture
def coder() -> Iterator[Worker]:
    coder = Worker("test-dashboard")
    yield coder
    coder.close()
