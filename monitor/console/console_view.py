"""`ConsoleView`: everything that the console's routes and viewers read or change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry

from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.change_desk import ChangeDesk
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.console.search_routes import StoreView


class Picture(Protocol):
    """Decoded evidence of one frame."""

    @property
    def png(self) -> bytes: ...
    @property
    def seq(self) -> int: ...
    @property
    def units(self) -> list[int]: ...
    @property
    def side(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ConsoleView:
    """One console, for its page and its API."""

    title: str
    fleet: Fleet
    registry: CollectorRegistry
    trouble: Callable[[], str | None]  # why nothing is observed now
    changes: ChangeDesk
    store: StoreView | None  # None: nothing is stored
    decode: Callable[[CameraRecord], Awaitable[Picture]]  # the newest evidence; raises ValueError with the reason
