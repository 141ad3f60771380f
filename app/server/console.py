"""`sagelink console`: a page of all cameras of a broker, fed only by what travels anyway, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from sagelink.models.class_names import KnownClasses
from sagelink.models.heads.head import read_head
from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.change_desk import ChangeDesk, KeptChange
from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.console_view import ConsoleView, Picture
from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.fleet import Fleet, PastCameras
from sagelink.monitor.console.routes import console_app
from sagelink.monitor.console.search_routes import StoreView
from sagelink.monitor.console.store_search import message_of_frame
from sagelink.monitor.console.store_writer import StoreWriter
from sagelink.monitor.console.stored_past import incomplete_pictures, last_changes, month_bits, recent_events
from sagelink.monitor.metrics import ConsoleMetrics
from sagelink.net.access_guard import Tokens, require_secret
from sagelink.net.http import page_url, parse_address, serve_http
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.credentials import check_token_length
from sagelink.pipeline.descriptors import raise_descriptor_limit
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.tasks import abandon_threads_at_exit, background, on_signals, run_loop
from sagelink.pipeline.threads import Worker
from sagelink.server.evidence_view import decode_view
from sagelink.stages.confidence_gate import policy_names
from sagelink.transport.codecs.tokens import EmbeddingNeeded
from sagelink.transport.mqtt.address import message_auth, open_broker
from sagelink.transport.mqtt.console import MqttConsoleLink
from sagelink.transport.mqtt.topics import Topics

if TYPE_CHECKING:
    from sagelink.transport.patch_embedding import Embedding

log = logging.getLogger(__name__)

_VIEW, _CONTROL = "SAGELINK_CONSOLE_VIEW_TOKEN", "SAGELINK_CONSOLE_CONTROL_TOKEN"
_SWEEP_S = 1.0
_RECENT_S = 86_400.0  # events of this time are shown again after a start
_KEPT_CHANGES = 500
_COOKIE = "sagelink-console"


def console(config: Config, url: str, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. `url`: of the broker. `tell` receives one line for the user. Raises
    SagelinkError."""
    raise_descriptor_limit()
    page = ConsolePageServer(config, config.console.http, "console.http")
    run_loop(_console(config, url, page, tell), fast=False)


async def _console(config: Config, url: str, page: ConsolePageServer, tell: Callable[[str], None]) -> None:
    abandon_threads_at_exit()
    broker, auth = open_broker(url, config.mqtt, "the broker"), message_auth(config.mqtt)
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(page.observing())
        link = await stack.enter_async_context(MqttConsoleLink(broker, Topics(config.mqtt.prefix), page.fleet, auth))
        changes = ChangeDesk(link.change, lambda camera: link.change_refusal, policy_names())
        address = await stack.enter_async_context(page.serving(broker.url, lambda: link.trouble, changes))
        on_signals(stopped.set)
        tell(f"console of {broker.url} on {address}")
        await stopped.wait()


class ConsolePageServer:
    """The page of a console, and the fleet that it shows: beside a broker, or in the process of a server."""

    def __init__(self, config: Config, address: str, key: str) -> None:
        """`address`: host:port, of the configuration's `key`. Raises UsageError."""
        self._config = config
        self._where = parse_address(address, key)
        self._tokens = console_tokens(*self._where)
        self._metrics = ConsoleMetrics(CollectorRegistry())
        self.fleet = Fleet(_class_names(config), self._metrics.count_ignored)
        self._metrics.follow(lambda: len(self.fleet.records), lambda: self.fleet.messages)
        self._decoder = EvidenceDecoder(config)
        self._kept: _KeptData | None = None

    @contextlib.asynccontextmanager
    async def observing(self) -> AsyncIterator[None]:
        """Opens the store, if there is one. To be entered before the fleet gets its first camera."""
        async with AsyncExitStack() as stack:
            stack.callback(self._decoder.close)
            if self._config.console.store is not None:
                self._kept = await stack.enter_async_context(_store(self._config, self.fleet, self._decoder))
            await stack.enter_async_context(background(_sweep(self.fleet)))
            yield

    @contextlib.asynccontextmanager
    async def serving(
        self, title: str, link_trouble: Callable[[], str | None], changes: ChangeDesk
    ) -> AsyncIterator[str]:
        """Serves the page; yields its URL. Raises UsageError when it cannot listen."""
        kept = self._kept
        if kept is not None:
            changes.restore(kept.changes)
            changes.listen(kept.writer.change)
            self._metrics.follow_store(lambda: kept.writer.not_stored)

        def trouble() -> str | None:
            return link_trouble() or (kept.writer.trouble if kept else None)

        stored = kept.view if kept else None
        registry, decode = self._metrics.registry, self._decoder.decode
        view = ConsoleView(title, self.fleet, registry, trouble, changes, stored, decode)
        async with serve_http(console_app(view, self._tokens), *self._where) as (host, port):
            yield page_url(host, port)


def console_tokens(host: str, port: int) -> Tokens:
    """The tokens of the environment. Raises UsageError for short ones, for equal ones, and without one where others can
    reach the page."""
    view, control = os.environ.get(_VIEW) or None, os.environ.get(_CONTROL) or None
    for token in filter(None, (view, control)):
        check_token_length(token, "console")
    if view is not None and view == control:
        raise UsageError(f"{_VIEW} and {_CONTROL} are equal; accepted: two different tokens")
    hint = f"Set {_CONTROL} in the environment, and {_VIEW} for those who may not change anything"
    require_secret(host, control or view, "token", f"console.http '{host}:{port}'", hint)
    return Tokens(control, view, _COOKIE)


def _class_names(config: Config) -> KnownClasses:
    names = KnownClasses(config.server)
    for path in filter(None, (config.head, *config.heads.values())):
        names.add_head(read_head(path))
    return names


@dataclass(frozen=True, slots=True)
class _KeptData:
    view: StoreView
    writer: StoreWriter
    changes: list[KeptChange]


@contextlib.asynccontextmanager
async def _store(config: Config, fleet: Fleet, decoder: EvidenceDecoder) -> AsyncIterator[_KeptData]:
    """Opens the store, and writes what the fleet observes while the body runs."""
    own, worker = config.console, Worker("console-store")
    assert own.store is not None
    store = await worker.call(ConsoleStore, own.store)
    try:
        events: dict[str, list[SeenEvent]] = {}
        since_s = time.time() - _RECENT_S
        for camera, event in await worker.call(recent_events, store, since_s):
            events.setdefault(camera, []).append(event)
        incomplete = await worker.call(incomplete_pictures, store, since_s)
        fleet.restore(PastCameras(await worker.call(month_bits, store), events, incomplete))
        writer = StoreWriter(store, worker, own.size, own.keep)
        fleet.listen(writer)

        async def picture(number: int) -> bytes:
            found = await worker.call(message_of_frame, store, number)
            if found is None:
                raise ValueError("this frame is not stored")
            return await decoder.stored(*found)

        view = StoreView(store, worker, picture)
        async with background(writer.run()):
            yield _KeptData(view, writer, await worker.call(last_changes, store, _KEPT_CHANGES))
        await writer.flush()
    finally:
        worker.close(last=store.close)


async def _sweep(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        fleet.sweep(time.monotonic())


class EvidenceDecoder:
    """Decodes the newest evidence of a camera in a thread of its own."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._worker = Worker("console-decoder")
        self._embedding: Embedding | None = None
        self._looked = False

    async def decode(self, record: CameraRecord) -> Picture:
        """Raises ValueError with the reason why there is no picture."""
        if record.info is None or record.message is None:
            raise ValueError("no evidence yet")
        info = record.info
        return await self._worker.call(self._decode, record.message.data, info.side, info.patch_size)

    async def stored(self, message: bytes, side: int, patch_size: int) -> bytes:
        """PNG of a message, grey where nothing was sent. Raises ValueError."""
        return (await self._worker.call(self._decode, message, side, patch_size, transparent=False)).png

    def close(self) -> None:
        self._worker.close()

    def _decode(self, message: bytes, side: int, patch_size: int, transparent: bool = True) -> Picture:
        decode = partial(decode_view, message, side, patch_size, transparent=transparent)
        try:
            try:
                return decode(self._embedding if self._fits(patch_size) else None)
            except EmbeddingNeeded:
                if self._looked:
                    raise
                self._looked, self._embedding = True, self._server_embedding()
                return decode(self._embedding if self._fits(patch_size) else None)
        except ValueError as error:
            raise ValueError(f"this evidence cannot be shown: {error}") from None

    def _fits(self, patch_size: int) -> bool:
        return self._embedding is not None and len(self._embedding.matrix) == 3 * patch_size**2

    def _server_embedding(self) -> Embedding | None:
        """The patch embedding of the server's model, for evidence that holds tokens; None where it is not here."""
        from sagelink.models.loading import outline  # loads PyTorch: most consoles show no tokens
        from sagelink.stages.evidence_encoder import canvas_of

        try:
            return canvas_of(outline(self._config.server, self._config.server_model, ())).embedding
        except UsageError as error:
            log.info("event=no_embedding reason=%r", str(error))
            return None
