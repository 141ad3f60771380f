"""One supervised connection to a broker: reconnects with a fresh client, so that no message is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import aiomqtt

from sagelink.pipeline.tasks import first_error
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import (
    BrokerClient,
    ConnackTimeout,
    OnMessage,
    explain,
    is_unsupported_protocol,
)
from sagelink.transport.reconnect import Reconnector

log = logging.getLogger(__name__)

_DISCONNECT_S = 0.5  # longest wait for a broker when disconnecting
_V5, _V311 = aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311


class BrokerConnection(Reconnector):
    """Calls `session(client)` with each connected client; the session ends when the connection ends.

    The session calls `established` when it is ready for use.
    """

    def __init__(
        self,
        broker: Broker,
        session: Callable[[BrokerClient], Awaitable[None]],
        *,
        identifier: str,
        on_message: OnMessage,
        will: aiomqtt.Will | None = None,
        before_connecting: Callable[[], Awaitable[None]] | None = None,
        take_retained: bool = True,
    ) -> None:
        """`on_message` is called with topic and payload of each message that arrives; with `take_retained` False, only
        of messages that are published during the connection."""
        super().__init__("broker", broker.url, self._run_connection)
        self._broker = broker
        self._session = session
        self._identifier = identifier
        self._will = will
        self._on_message = on_message
        self._before_connecting = before_connecting
        self._take_retained = take_retained
        self._protocol = _V5 if broker.protocol == "5" else _V311
        self._known_v5 = False  # the broker has accepted MQTT 5
        self._trying_v311 = False  # after MQTT 5 met silence, which may have another cause

    @property
    def v5(self) -> bool:
        return self._protocol is _V5

    def established(self) -> None:
        super().established()
        self._known_v5, self._trying_v311 = self.v5, False

    async def _run_connection(self) -> str | None:
        """One connection from start to end. Returns the reason why it ended; None to fall back to MQTT 3.1.1."""
        try:
            if self._before_connecting is not None:
                await self._before_connecting()
            async with self._connected() as client:
                await self._session(client)
            error: BaseException = aiomqtt.MqttError("the broker ended the connection")
        except* aiomqtt.MqttError as errors:
            error = first_error(errors)
        if self._falls_back(error):
            return None
        if self._trying_v311:
            self._protocol, self._trying_v311 = _V5, False
        return explain(error)

    def _falls_back(self, error: BaseException) -> bool:
        """Switches to MQTT 3.1.1 if the broker refuses MQTT 5, or does not answer it: amqtt waits for more bytes."""
        refused = is_unsupported_protocol(error)
        if not self.v5 or self._known_v5 or not (refused or isinstance(error, ConnackTimeout)):
            return False
        self._trying_v311 = not refused
        log.info("event=fallback broker=%s protocol=3.1.1", self._broker.url)
        self._protocol = _V311
        return True

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerClient]:
        client = BrokerClient(
            self._broker, self._identifier, self._protocol, self._will, self._on_message, self._take_retained
        )
        await client.__aenter__()
        try:
            yield client
        finally:
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(_DISCONNECT_S):  # a frozen broker must not delay the end
                    await client.__aexit__(None, None, None)
