"""`RunView`: everything of a run that the dashboard's routes and viewers read or change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from sagelink.models.preprocess import Resize
from sagelink.models.unit_grid import UnitGrid
from sagelink.monitor.dashboard.verdict_feed import VerdictFeed
from sagelink.monitor.events.feed import EventFeed
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.recent_frames import RecentFrames
from sagelink.stages.run_control import Control
from sagelink.transport.codecs import Canvas


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, for the dashboard."""

    title: str
    models: str  # names of both models, for people
    grid: UnitGrid
    canvas: Canvas
    resize: Resize
    policies: list[str]  # names of the gate policies
    feed: VerdictFeed
    control: Control
    registry: CollectorRegistry
    now: Callable[[], dict[str, Any]]  # the state of the run as plain JSON values, for the page and for /api/stats
    labels: LabelDesks | None = None  # None: nothing on the page is about labels
    recent: RecentFrames | None = None  # the frames of `labels`
    events: EventFeed | None = None  # None: the run has no rules of events
    event_pictures: Path | None = None  # folder of their pictures
