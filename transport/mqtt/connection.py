"""One supervised connection to a broker: lost, it comes back with a fresh client, so that nothing is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from aiomqtt.types import PahoSocket
from paho.mqtt import client as paho
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY

from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.tasks import first_error
from sagelink.transport.mqtt.address import Broker

log = logging.getLogger(__name__)

_CONNECT_S = 3.0  # longest wait for TCP, and for the broker's CONNACK
_ANSWER_S = 10.0  # longest wait for the broker's answer to anything
_TIMED_OUT = "Operation timed out"  # what aiomqtt says; it has no class for it
_CUT = "[code:128] Unspecified error"  # what it says of a peer that is gone
_CODE = re.compile(r"^\[code:\d+\] ")
_GOODBYE_S = 0.5
_PROVEN_S = 5.0  # a connection that lived so long was a success
_UNSUPPORTED_PROTOCOL = (1, 132)  # of MQTT 3.1.1, of MQTT 5
# One line of ours says what happens to a connection; aiomqtt and paho would add one for each message.
_QUIET = logging.getLogger(f"{__name__}.library")
_QUIET.setLevel(logging.CRITICAL)


class _Silence(aiomqtt.MqttError):
    """The broker did not answer CONNECT."""


class _Client(aiomqtt.Client):
    """Watches a socket for writing only while it is open: between asking for it and doing it paho may have closed it,
    and asyncio would log a traceback."""

    def _on_socket_register_write(self, client: paho.Client, userdata: object, sock: PahoSocket) -> None:
        def write() -> None:
            try:
                client.loop_write()
            except OSError as error:
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def watch() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), write)

        self._loop.call_soon_threadsafe(watch)


class BrokerConnection:
    """Calls `session(client)` with each connected client; the session ends when the connection does."""

    def __init__(
        self,
        broker: Broker,
        session: Callable[[aiomqtt.Client], Awaitable[None]],
        *,
        identifier: str,
        will: aiomqtt.Will | None = None,
        queue: int = 64,
        before_connecting: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`queue`: messages that may wait to be taken; more are discarded."""
        self._broker = broker
        self._session = session
        self._identifier = identifier
        self._will = will
        self._queue = queue
        self._before_connecting = before_connecting
        self._protocol = aiomqtt.ProtocolVersion.V5 if broker.protocol == "5" else aiomqtt.ProtocolVersion.V311
        self._known_v5 = False
        self._guessing = False  # 3.1.1 is tried because 5 met silence
        self._backoff = Backoff()
        self._attempted = asyncio.Event()
        self.trouble: str | None = f"{broker.url}: not connected yet"

    @property
    def v5(self) -> bool:
        return self._protocol is aiomqtt.ProtocolVersion.V5

    async def first_attempt(self) -> str | None:
        """Waits until the first attempt is over; None, or why it failed."""
        await self._attempted.wait()
        return self.trouble

    def established(self) -> None:
        """The session calls this when it is ready for use."""
        log.info("event=connected broker=%s", self._broker.url)
        self.trouble = None
        self._known_v5, self._guessing = self.v5, False
        self._attempted.set()

    async def run(self) -> None:
        """Connects, for ever again, until it is cancelled."""
        while True:
            began_s = time.monotonic()
            try:
                if self._before_connecting is not None:
                    await self._before_connecting()
                async with self._connected() as client:
                    await self._session(client)
                error: BaseException = aiomqtt.MqttError("the broker ended the connection")
            except* aiomqtt.MqttError as errors:
                error = first_error(errors)
            if self._falls_back(error):
                continue
            if self._guessing:
                self._protocol, self._guessing = aiomqtt.ProtocolVersion.V5, False
            self._lost(_explain(error))
            if time.monotonic() - began_s > _PROVEN_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    def _lost(self, reason: str) -> None:
        trouble = f"{self._broker.url}: {reason}"
        if trouble != self.trouble:  # once per change, not once an attempt
            self.trouble = trouble
            log.warning("event=disconnected broker=%s reason=%r", self._broker.url, reason)
        self._attempted.set()

    def _falls_back(self, error: BaseException) -> bool:
        """Turns to MQTT 3.1.1 when the broker says that it knows no 5, or is silent on it: amqtt waits for more."""
        code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
        refused = getattr(code, "value", code) in _UNSUPPORTED_PROTOCOL
        if not self.v5 or self._known_v5 or not (refused or isinstance(error, _Silence)):
            return False
        self._guessing = not refused
        log.info("event=fallback broker=%s protocol=3.1.1", self._broker.url)
        self._protocol = aiomqtt.ProtocolVersion.V311
        return True

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiomqtt.Client]:
        client = _Client(
            self._broker.host,
            self._broker.port,
            username=self._broker.username,
            password=self._broker.password,
            logger=_QUIET,
            identifier=self._identifier,
            protocol=self._protocol,
            will=self._will,
            clean_session=None if self.v5 else True,
            clean_start=True if self.v5 else MQTT_CLEAN_START_FIRST_ONLY,
            timeout=_CONNECT_S,
            keepalive=self._broker.keepalive_s,
            max_queued_incoming_messages=self._queue,
            tls_context=self._broker.tls,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        client.pending_calls_threshold = 1000
        client._client.connect_timeout = _CONNECT_S  # aiomqtt has no parameter for it
        try:
            await client.__aenter__()
        except aiomqtt.MqttError as error:
            raise _Silence(str(error)) if str(error) == _TIMED_OUT else error from None
        client.timeout = _ANSWER_S
        try:
            yield client
        finally:
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):  # a frozen broker does not hold the end
                    await client.__aexit__(None, None, None)


def socket_of(client: aiomqtt.Client) -> socket.socket | None:
    """The socket below a client, for its counters."""
    return client._client.socket()  # type: ignore[return-value]  # aiomqtt offers no way to it


def _explain(error: BaseException) -> str:
    """The cause as a person reads it: no errno, no source line of a C file."""
    if isinstance(error, MqttConnectError):
        return f"the broker refuses: {_CODE.sub('', str(error))}"
    text = str(error.__cause__ or error)
    if text == _CUT:
        return "the connection broke off"
    text = re.sub(r"^\[(Errno -?\d+|SSL: \w+)\] |\(_ssl\.c:\d+\)", "", text).strip()
    return text.removeprefix("[SSL] ") or type(error).__name__
