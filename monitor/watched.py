"""A run as the dashboard sees it: all that its routes and viewers read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from models.picture import Resize
from models.zoo import UnitGrid
from monitor.feed import Feed
from pipeline.control import Control
from pipeline.stats import LiveStats
from transport.codecs import Canvas


@dataclass(frozen=True, slots=True)
class Watched:
    """One run."""

    title: str
    models: str
    labels: tuple[str, ...]
    grid: UnitGrid
    canvas: Canvas
    resize: Resize
    policies: list[str]
    feed: Feed
    stats: LiveStats
    control: Control
    registry: CollectorRegistry
    link: Callable[[], str | None]  # why no message would be taken now
    health: Callable[[], dict[str, dict[str, object] | None]]  # of each camera; None for what cannot fail

    def now(self) -> dict[str, Any]:
        """The state of the run, for the page and for /api/stats."""
        now_is = self.stats.snapshot(self.labels)
        unseen = {"frames": 0, "fps": 0.0, "silent_s": now_is["uptime_s"]}
        now_is["cameras"] = {
            name: now_is["cameras"].get(name, unseen) | {"health": health} for name, health in self.health().items()
        }
        return now_is | {"link": self.link(), "control": self.control.state()}
