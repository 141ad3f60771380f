"""`sagelink console`: a page of all cameras of a broker, fed only by what travels anyway, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from sagelink.models.class_names import KnownClasses
from sagelink.models.loading import outline
from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.change_desk import ChangeDesk
from sagelink.monitor.console.console_view import ConsoleView, Picture
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.console.routes import console_app
from sagelink.monitor.dashboard import page_url
from sagelink.monitor.metrics import ConsoleMetrics
from sagelink.net.access_guard import Tokens, require_secret
from sagelink.net.http import parse_address, serve_http
from sagelink.pipeline.config import Config
from sagelink.pipeline.credentials import check_token_length
from sagelink.pipeline.descriptors import raise_descriptor_limit
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.tasks import abandon_threads_at_exit, background, on_signals, run_loop
from sagelink.pipeline.threads import Worker
from sagelink.server.evidence_view import decode_view
from sagelink.stages.confidence_gate import policy_names
from sagelink.stages.evidence_encoder import canvas_of
from sagelink.transport.mqtt.address import message_auth, open_broker
from sagelink.transport.mqtt.console import MqttConsoleLink
from sagelink.transport.mqtt.topics import Topics

if TYPE_CHECKING:
    from sagelink.transport.patch_embedding import Embedding

log = logging.getLogger(__name__)

_VIEW, _CONTROL = "SAGELINK_CONSOLE_VIEW_TOKEN", "SAGELINK_CONSOLE_CONTROL_TOKEN"
_SWEEP_S = 1.0
_COOKIE = "sagelink-console"


def console(config: Config, url: str, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. `url`: of the broker. `tell` receives one line for the user. Raises
    SagelinkError."""
    raise_descriptor_limit()
    where = console_address(config)
    tokens = console_tokens(*where)
    run_loop(_console(config, url, where, tokens, tell), fast=False)


def console_address(config: Config) -> tuple[str, int]:
    """Host and port of the page. Raises UsageError."""
    return parse_address(config.console.http, "console.http")


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


async def _console(
    config: Config, url: str, where: tuple[str, int], tokens: Tokens, tell: Callable[[str], None]
) -> None:
    abandon_threads_at_exit()
    broker, auth = open_broker(url, config.mqtt, "the broker"), message_auth(config.mqtt)
    metrics = ConsoleMetrics(CollectorRegistry())
    fleet = Fleet(KnownClasses(config.server), metrics.count_ignored)
    metrics.follow(lambda: len(fleet.records), lambda: fleet.messages)
    decoder = EvidenceDecoder(config)
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.callback(decoder.close)
        link = await stack.enter_async_context(MqttConsoleLink(broker, Topics(config.mqtt.prefix), fleet, auth))
        changes = ChangeDesk(link.change, link.change_refusal, policy_names())
        view = ConsoleView(broker.url, fleet, metrics.registry, lambda: link.trouble, changes, decoder.decode)
        host, port = await stack.enter_async_context(serve_http(console_app(view, tokens), *where))
        await stack.enter_async_context(background(_sweep(fleet)))
        on_signals(stopped.set)
        tell(f"console of {broker.url} on {page_url(host, port)}")
        await stopped.wait()


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
        if record.info is None or not record.messages:
            raise ValueError("no evidence yet")
        messages, info = [message.data for message in record.messages], record.info
        return await self._worker.call(self._decode, messages, info.side, info.patch_size)

    def close(self) -> None:
        self._worker.close()

    def _decode(self, messages: list[bytes], side: int, patch_size: int) -> Picture:
        if not self._looked:
            self._looked, self._embedding = True, self._server_embedding()
        embedding = self._embedding
        if embedding is not None and len(embedding.matrix) != 3 * patch_size**2:
            embedding = None
        try:
            return decode_view(messages, side, patch_size, embedding)
        except ValueError as error:
            raise ValueError(f"this evidence cannot be shown: {error}") from None

    def _server_embedding(self) -> Embedding | None:
        """The patch embedding of the server's model, for evidence that holds tokens; None where it is not here."""
        try:
            return canvas_of(outline(self._config.server, self._config.server_model, ())).embedding
        except UsageError as error:
            log.info("event=no_embedding reason=%r", str(error))
            return None
