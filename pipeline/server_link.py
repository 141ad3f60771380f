"""The edge's way to its server: in this process, behind the broker that `ship.server` names, or straight to it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.clock import BudgetClock, MonotonicClock
from pipeline.config import Config
from pipeline.control import Control
from pipeline.tasks import background, leave_threads_behind
from pipeline.tolls import Tolls

if TYPE_CHECKING:
    from models.pair import Pair
    from transport.link import EdgeLink, Hello


@contextlib.asynccontextmanager
async def server_link(
    config: Config,
    models: Pair,
    cameras: Sequence[str],
    tolls: Tolls,
    control: Control,
    clock: BudgetClock,
    on_mended: Callable[[str], None],
) -> AsyncIterator[EdgeLink]:
    """A link that is there while the body runs; `on_mended` is told what loss it made good. Raises UsageError;
    SagelinkError where a replay finds no server."""
    if not config.ship.server:
        async with _in_process(config, models) as link:
            yield link
        return
    from models.zoo import fingerprint
    from pipeline.assembly import REPLAY_DEADLINE_S
    from transport.link import Hello
    from transport.webrtc.address import is_webrtc

    live = isinstance(clock, MonotonicClock)
    grid = models.server.grid
    deadline_s = config.ship.deadline if live else REPLAY_DEADLINE_S
    hello = Hello(grid.side, grid.patch_size, fingerprint(models.edge.labels), deadline_s)

    def charge(bits: int) -> bool:
        assert isinstance(clock, MonotonicClock)
        return tolls.charge(clock.elapsed_s(), bits)

    leave_threads_behind()
    toll = charge if live else None  # a replay's budget knows no time but the stream's
    if is_webrtc(config.ship.server):
        remote = _webrtc_link(config, cameras, hello, toll, on_mended)
    else:
        remote = _mqtt_link(config, cameras, hello, toll, control)
    async with remote:
        yield remote


@contextlib.asynccontextmanager
async def _in_process(config: Config, models: Pair) -> AsyncIterator[EdgeLink]:
    from prometheus_client import CollectorRegistry

    from pipeline.metrics import ServerMetrics
    from server.batch import BatchLimits
    from server.classify import Classifier
    from server.memory import Memory
    from server.service import Service
    from transport.in_process import InProcessLink

    # One frame a batch: a replay gives the same numbers each time, and nobody else is there to share with.
    limits = BatchLimits(max_units=1, max_wait_s=0.0, per_camera=64)
    link = InProcessLink()
    memory, metrics = Memory(config.serve.memory or 0), ServerMetrics(CollectorRegistry())
    service = Service(link, Classifier(models.server), limits, metrics, memory=memory)
    async with background(service.run()), link:
        yield link


def _mqtt_link(
    config: Config, cameras: Sequence[str], hello: Hello, toll: Callable[[int], bool] | None, control: Control
) -> EdgeLink:
    from transport.mqtt.address import open_broker
    from transport.mqtt.edge import MqttEdgeLink
    from transport.mqtt.topics import Topics
    from transport.webrtc.address import INSTEAD

    return MqttEdgeLink(
        open_broker(config.ship.server, config.mqtt, "ship.server", INSTEAD),
        Topics(config.mqtt.prefix),
        config.mqtt.node or host_name(),
        cameras,
        hello,
        in_flight=config.ship.in_flight,
        toll=toll,
        must_connect=toll is None,
        on_budget=control.take_budget if toll else None,
    )


def _webrtc_link(
    config: Config,
    cameras: Sequence[str],
    hello: Hello,
    toll: Callable[[int], bool] | None,
    on_mended: Callable[[str], None],
) -> EdgeLink:
    from pipeline.extras import need_aiortc
    from transport.webrtc.address import open_meeting_point

    need_aiortc("ship.server")
    from transport.webrtc.edge import WebRtcEdgeLink

    at = open_meeting_point(config.ship.server, config.webrtc, "ship.server")
    return WebRtcEdgeLink(at, config.webrtc.node or host_name(), cameras, hello, toll=toll, on_mended=on_mended)


def host_name() -> str:
    """This machine's name as one level of a topic, or of a camera's address."""
    return socket.gethostname().partition(".")[0].translate(str.maketrans("+#/$ ", "-----")) or "edge"
