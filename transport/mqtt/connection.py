"""One supervised connection to a broker: reconnects with a fresh client, so that no message is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import aiomqtt

from sagelink.pipeline.tasks import first_error
from sagelink.transport.gated_tcp import GatedTcp
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import (
    CONNECT_S,
    BrokerClient,
    NoConnack,
    explain,
    is_unsupported_protocol,
)
from sagelink.transport.mqtt.server_client import OnMessage
from sagelink.transport.reconnect import Reconnector
from sagelink.transport.server_url import url_host
from sagelink.transport.wire_cost import WireCharger

log = logging.getLogger(__name__)

_MAX_CONNECT_S = 60.0  # a set-up that needs longer than this at the rate of the budget is refused
_SPREAD = 2.0  # a set-up may take this many times what it needs at the rate of the budget
_DISCONNECT_S = 1.6  # longest wait for a broker when disconnecting: a full window empties meanwhile
_DISCONNECT_BYTES = 80  # DISCONNECT, and two records of TLS
_V5, _V311 = aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311


class BrokerConnection(Reconnector):
    """Calls `session(client)` with each connected client; the session ends when the connection ends.

    The session calls `established` when it is ready for use. If the broker has several addresses, each connection
    begins with the one after the last; if an address takes no connection, the next one is tried at once, and a pause
    follows the last of them.
    """

    def __init__(
        self,
        broker: Broker,
        session: Callable[[BrokerClient], Awaitable[None]],
        *,
        identifier: str,
        on_message: OnMessage,
        will: aiomqtt.Will | None = None,
        charger: WireCharger | None = None,
        connect_bits: int = 0,
        goodbye_bytes: int = 0,
    ) -> None:
        """`on_message`: see BrokerClient. `charger`: pays for the connection's bits, and lets them leave when there is
        room; None: nobody pays. `connect_bits`: what setting the connection up costs, all in all.
        `goodbye_bytes`: of what the session publishes at its end."""
        pause_s = charger.pause_s if charger else lambda: 0.0
        super().__init__("broker", broker.url, self._run_connection, pause_s)
        self._broker = broker
        self._session = session
        self._identifier = identifier
        self._will = will
        self._on_message = on_message
        self._charger = charger
        self._connect_bits = connect_bits
        self._goodbye_bytes = goodbye_bytes + _DISCONNECT_BYTES
        self._addresses = deque(broker.addresses)  # the one that is in use, or was last, is at the end
        self._protocol = _V5 if broker.protocol == "5" else _V311
        self._known_v5 = False  # the broker has accepted MQTT 5
        self._trying_v311 = False  # after MQTT 5 met silence, which may have another cause

    @property
    def v5(self) -> bool:
        return self._protocol is _V5

    def established(self) -> None:
        super().established()
        self._known_v5, self._trying_v311 = self.v5, False

    async def _run_connection(self) -> str:
        """One connection from start to end, to the first address that takes one. Returns why it ended, or why there was
        none."""
        if (refusal := self._plan()) is not None:
            return refusal
        reasons: list[str] = []
        for _ in self._broker.addresses:
            self._addresses.rotate(-1)
            self._tried = self._broker.url_of(self._addresses[-1])
            while (reason := await self._attempt()) is None:
                pass
            host, port = self._addresses[-1]
            reasons.append(reason if len(self._addresses) == 1 else f"{url_host(host)}:{port}: {reason}")
            if self.trouble is None:  # there was a connection
                break
        return "; ".join(reasons)

    async def _attempt(self) -> str | None:
        """Returns the reason why the connection ended; None to fall back to MQTT 3.1.1."""
        try:
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

    def _plan(self) -> str | None:
        """The reason why no connection fits the budget; None if one does."""
        if self._charger is None:
            return None
        self._charger.attempt_bits = 0
        smallest_bits = GatedTcp(self._charger, *self._addresses[-1]).smallest_room_bits()
        return self._charger.refusal(self._connect_bits, smallest_bits, _MAX_CONNECT_S)

    def _falls_back(self, error: BaseException) -> bool:
        """Switches to MQTT 3.1.1 if the broker refuses MQTT 5, or does not answer it: amqtt waits for more bytes."""
        refused = is_unsupported_protocol(error)
        if not self.v5 or self._known_v5 or not (refused or isinstance(error, NoConnack)):
            return False
        self._trying_v311 = not refused
        log.info("event=fallback broker=%s protocol=3.1.1", self._tried)
        self._protocol = _V311
        return True

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerClient]:
        gated, connect_s, address = None, CONNECT_S, self._addresses[-1]
        if self._charger is not None:
            gated = GatedTcp(self._charger, *address, self._goodbye_bytes)
            connect_s += _SPREAD * self._connect_bits / (self._charger.rate_bps or float("inf"))
        client = BrokerClient(
            self._broker, address, self._identifier, self._protocol, self._will, self._on_message, gated, connect_s
        )
        await client.__aenter__()
        try:
            yield client
        finally:
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(_DISCONNECT_S):  # a frozen broker must not delay the end
                    await client.__aexit__(None, None, None)
