"""Opens the edge's link to its server, as `ship.server` says: in this process, over MQTT, or over WebRTC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sagelink.app.edge.operator_commands import CommandTarget
from sagelink.app.replay.reply_deadline import REPLAY_DEADLINE_S
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.tasks import abandon_threads_at_exit, background
from sagelink.pipeline.urls import host_name, is_webrtc
from sagelink.stages.run_control import Control

if TYPE_CHECKING:
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.models.heads.head import Head
    from sagelink.models.run_models import RunModels
    from sagelink.transport.link import CameraInfo, EdgeLink
    from sagelink.transport.operator_commands import Action

_OWN_HEADS_BYTES = 1_000_000_000  # of the heads of a run whose server is in the same process


@contextlib.asynccontextmanager
async def edge_link(
    config: Config,
    models: RunModels,
    heads: HeadsOfRun,
    cameras: Sequence[str],
    wire_ledger: WireLedger | None,
    control: Control,
    on_recovered: Callable[[str], None],
    digest: Callable[[str], bytes],
) -> AsyncIterator[EdgeLink]:
    """A link that is open while the body runs.

    `wire_ledger`: None for a replay. `on_recovered`: called with the kind of each loss that the link recovered.
    `digest`: the message for a console about a camera, where the configuration asks for it. Raises UsageError;
    SagelinkError when a replay finds no server.
    """
    if not config.ship.server:
        async with _in_process(config, models, heads) as local_link:
            yield local_link
        return
    from sagelink.models.labels import labels_fingerprint
    from sagelink.transport.link import CameraInfo

    grid = models.server.grid
    deadline_s = config.ship.deadline if wire_ledger else REPLAY_DEADLINE_S
    offers = OfferedHeads(heads)
    camera_info = CameraInfo(grid.side, grid.patch_size, labels_fingerprint(models.edge.labels), deadline_s)

    abandon_threads_at_exit()
    if is_webrtc(config.ship.server):
        link = _webrtc_link(config, cameras, camera_info, wire_ledger, offers, on_recovered)
    else:
        link = _mqtt_link(config, cameras, camera_info, wire_ledger, offers, control, digest)
    async with link:
        yield link


@contextlib.asynccontextmanager
async def _in_process(config: Config, models: RunModels, heads: HeadsOfRun) -> AsyncIterator[EdgeLink]:
    from prometheus_client import CollectorRegistry

    from sagelink.models.pair import Pair
    from sagelink.monitor.metrics import ServerMetrics
    from sagelink.server.batch import BatchLimits
    from sagelink.server.classify import Classifier
    from sagelink.server.head_store import HeadStore
    from sagelink.server.service import Service
    from sagelink.transport.in_process import InProcessLink

    assert isinstance(models, Pair), "packed models are for a server in another process"
    # One frame per batch: a replay gives the same numbers each time, and no other edge shares this server.
    limits = BatchLimits(max_units=1, max_wait_s=0.0, per_camera=64)
    link = InProcessLink()
    metrics = ServerMetrics(CollectorRegistry())
    store = HeadStore(models.server, max_bytes=_OWN_HEADS_BYTES)

    def keep(head: Head) -> None:
        store.add(head.file_content(), time.monotonic())

    heads.prepare_with(keep)
    service = Service(link, Classifier(models.server), limits, metrics, heads=store)
    async with background(service.run()), link:
        yield link


def _mqtt_link(
    config: Config,
    cameras: Sequence[str],
    camera_info: CameraInfo,
    wire_ledger: WireLedger | None,
    offers: OfferedHeads,
    control: Control,
    digest: Callable[[str], bytes],
) -> EdgeLink:
    from sagelink.transport.mqtt.address import message_auth, open_broker
    from sagelink.transport.mqtt.edge import MqttEdgeLink
    from sagelink.transport.mqtt.topics import Topics
    from sagelink.transport.webrtc.address import ALSO_WEBRTC

    return MqttEdgeLink(
        open_broker(config.ship.server, config.mqtt, "ship.server", ALSO_WEBRTC),
        Topics(config.mqtt.prefix),
        config.mqtt.node or host_name(),
        cameras,
        camera_info,
        in_flight=config.ship.in_flight,
        wire_ledger=wire_ledger,
        must_connect=wire_ledger is None,
        on_budget=partial(control.take_budget, by=f"MQTT, broker {config.ship.server}") if wire_ledger else None,
        auth=message_auth(config.mqtt),
        heads=offers,
        digest=digest if wire_ledger and config.sends_digest else None,
        on_command=CommandTarget(control, offers.carry_out).carry_out if wire_ledger else None,
    )


def _webrtc_link(
    config: Config,
    cameras: Sequence[str],
    camera_info: CameraInfo,
    wire_ledger: WireLedger | None,
    offers: OfferedHeads,
    on_recovered: Callable[[str], None],
) -> EdgeLink:
    from sagelink.net.optional_aiortc import need_aiortc
    from sagelink.transport.webrtc.address import open_signalling_endpoint

    need_aiortc("ship.server")
    from sagelink.transport.webrtc.edge import WebRtcEdgeLink

    endpoint = open_signalling_endpoint(config.ship.server, config.webrtc, "ship.server")
    return WebRtcEdgeLink(
        endpoint,
        config.webrtc.node or host_name(),
        cameras,
        camera_info,
        wire_ledger=wire_ledger,
        on_recovered=on_recovered,
        heads=offers,
    )


class OfferedHeads:
    """The heads of a run, as `HeadOffers` of its link."""

    def __init__(self, heads: HeadsOfRun) -> None:
        self._heads = heads

    @property
    def backbone(self) -> str:
        """Of the server model that the heads were taught on; empty without a head."""
        return next((head.card.server.backbone for head in self._heads.all()), "")

    def fingerprints(self, camera: str) -> tuple[bytes, ...]:
        return tuple(head.taught.fingerprint for head in self._heads.in_use(camera))

    def earlier_fingerprints(self, camera: str) -> tuple[bytes, ...]:
        first = self._heads.previous(camera)
        earlier = [*([] if first is None else [first]), *self._heads.further.previous(camera)]
        return tuple(head.taught.fingerprint for head in earlier)

    def content(self, fingerprint: bytes) -> bytes | None:
        head = self._heads.by_fingerprint(fingerprint)
        return None if head is None else head.file_content()

    def carry_out(self, camera: str, action: Action, content: bytes, head: str) -> str:
        """Of the operator: see `HeadsOfRun.carry_out`."""
        return self._heads.carry_out(camera, action, content, head)

    def listen(self, changed: Callable[[], None]) -> None:
        self._heads.listen(lambda camera, head: changed())
        self._heads.listen_to_further(lambda name: changed())
