"""A run as the dashboard sees it: all that its routes and viewers read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from sagelink.models.loading import UnitGrid
from sagelink.models.preprocess import Resize
from sagelink.monitor.verdict_feed import VerdictFeed
from sagelink.stages.control import Control
from sagelink.transport.codecs import Canvas


@dataclass(frozen=True, slots=True)
class RunView:
    """One run."""

    title: str
    models: str
    grid: UnitGrid
    canvas: Canvas
    resize: Resize
    policies: list[str]
    feed: VerdictFeed
    control: Control
    registry: CollectorRegistry
    snapshot: Callable[[], dict[str, Any]]
    link: Callable[[], str | None]  # why no message would be taken now

    def now(self) -> dict[str, Any]:
        """The state of the run, for the page and for /api/stats."""
        return self.snapshot() | {"link": self.link()}
