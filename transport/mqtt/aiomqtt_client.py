"""An aiomqtt client extended by a TCP time limit, access to its socket, typed connection errors and quiet closing.

This is the only module that uses private attributes and error texts of aiomqtt, and of paho below it. pyproject.toml
therefore pins aiomqtt to 2.5. Used here:

- `aiomqtt.Client._client` (the paho client): its `connect_timeout`, `socket()`, `publish()` and `_sock_close()`;
- the attribute `_socket` of paho's wrapper of a WebSocket: the socket inside;
- `aiomqtt.Client._on_connect`, `_on_disconnect`, `_on_publish` and `_on_message`, and `_connected`: for the properties
  of CONNACK, the end of a connection before it, the reason codes of PUBACK, and messages that wait in no queue;
- `aiomqtt.Client._on_socket_register_write`, `_disconnected` and `_loop`: the race described at `BrokerClient`;
- `paho.Client._create_socket_connection`: its TCP connection, which a gated one may replace;
- `aiomqtt.Client._wait_for` and `_disconnected`: it uses `asyncio.wait_for`, which on Python 3.11 loses a cancellation
  that arrives together with the answer, and does not notice that the connection ends meanwhile;
- the texts of `MqttError` in `_TIMED_OUT` and `_PEER_GONE`: aiomqtt has no class for either.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
import ssl
from collections.abc import Awaitable
from typing import Any, Self, TypeVar

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from aiomqtt.types import PahoSocket
from paho.mqtt import client as paho
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from sagelink.transport.gated_tcp import GatedTcp
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.server_client import OnMessage

CONNECT_S = 3.0  # longest wait for TCP, and for the broker's CONNACK
_ANSWER_S = 10.0  # longest wait for the broker's answer to any other packet
_MAX_PENDING_CALLS = 1000  # aiomqtt warns above this number
_TIMED_OUT = "Operation timed out"
_PEER_GONE = "[code:128] Unspecified error"
_UNANSWERED = "the connection ended before a broker had answered; is this an MQTT broker, and does the port use TLS?"
_CODE = re.compile(r"^\[code:\d+\] ")
_NOISE = re.compile(r"^\[(Errno -?\d+|SSL: \w+)\] |\(_ssl\.c:\d+\)")
_WORDS = {
    _PEER_GONE: "the connection broke off",
    "[code:4] The client is not currently connected.": "the connection broke off",
    _TIMED_OUT: f"the broker has not answered within {_ANSWER_S:g} s",
    # of paho, which does not keep the status of the response
    "WebSocket handshake error": "the web server does not accept a WebSocket for MQTT at this address and path",
    "EOF occurred in violation of protocol": "the connection broke off in the TLS handshake; does this port use TLS?",
}
_DENIED = 0x87
_NO_SUBSCRIBER = 0x10
_REFUSED = 0x80  # reason codes from here on are refusals
_T = TypeVar("_T")
_UNSUPPORTED_PROTOCOL = (1, 132)  # reason codes of MQTT 3.1.1 and of MQTT 5
# transport.reconnect logs each connection once; aiomqtt and paho would log every message as well.
_QUIET = logging.getLogger(f"{__name__}.library")
_QUIET.setLevel(logging.CRITICAL)


class SubscriptionRefused(aiomqtt.MqttError):
    """The broker does not let this user subscribe to a topic without which nothing works."""


class NoConnack(aiomqtt.MqttError):
    """The broker did not answer CONNECT."""


class BrokerClient(aiomqtt.Client):
    """A client for one connection: connecting a client again would resend messages of the earlier connection.

    A ServerClient. It watches a socket for writing only while the socket is open. paho may close it between the request
    to watch and the watching itself; then asyncio would log a traceback.
    """

    retains = True

    def __init__(
        self,
        broker: Broker,
        address: tuple[str, int],
        identifier: str,
        protocol: aiomqtt.ProtocolVersion,
        will: aiomqtt.Will | None,
        on_message: OnMessage,
        gated: GatedTcp | None = None,
        connect_s: float = CONNECT_S,
    ) -> None:
        """`address`: one of the broker's. `on_message` is called in the event loop with each message that arrives.
        `gated`: carries the bytes of the connection, in place of a socket of the library's own. `connect_s`: longest
        wait for TCP and TLS, and for the broker's CONNACK."""
        v5 = protocol is aiomqtt.ProtocolVersion.V5
        super().__init__(
            *address,
            username=broker.username,
            password=broker.password,
            logger=_QUIET,
            identifier=identifier,
            protocol=protocol,
            will=will,
            clean_session=None if v5 else True,
            clean_start=True if v5 else MQTT_CLEAN_START_FIRST_ONLY,
            timeout=connect_s,
            keepalive=broker.keepalive_s,
            tls_context=broker.tls,
            transport="tcp" if broker.web_path is None else "websockets",
            websocket_path=broker.web_path,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)] if gated is None else (),
        )
        self.pending_calls_threshold = _MAX_PENDING_CALLS
        self._client.connect_timeout = connect_s
        self.max_packet_bytes: int | None = None  # that the broker accepts; None if its CONNACK names no limit
        self.shares: bool | None = None  # the broker has shared subscriptions; None: MQTT 3.1.1 does not tell
        self._handle_message = on_message
        self._gated = gated
        self._connect_s = connect_s
        self._carrying: asyncio.Task[None] | None = None  # runs `gated`
        self._acknowledgements: dict[int, asyncio.Future[ReasonCode]] = {}  # by packet identifier

    async def __aenter__(self) -> Self:
        """Raises NoConnack, or another MqttError."""
        ended = self._disconnected  # aiomqtt drops it when CONNACK and the end of the connection come together
        try:
            if self._gated is not None:
                await self._open_gated(self._gated)
            await super().__aenter__()
            if ended.done() and ended.exception() is not None:
                raise aiomqtt.MqttError(_PEER_GONE) from ended.exception()
        except aiomqtt.MqttError as error:
            await self._end_gated()
            if str(error) == _PEER_GONE and ended.done() and ended.exception() is None:
                raise NoConnack(_UNANSWERED) from None
            if str(error) == _TIMED_OUT:
                raise NoConnack(f"no answer of an MQTT broker within {self._connect_s:.0f} s") from None
            raise
        except BaseException:
            await self._end_gated()
            raise
        self.timeout = _ANSWER_S
        return self

    async def __aexit__(self, *error: Any) -> None:
        try:
            await super().__aexit__(*error)
        finally:
            await self._end_gated()

    async def _open_gated(self, gated: GatedTcp) -> None:
        try:
            library_end = await gated.open(self._connect_s)
        except OSError as error:
            raise aiomqtt.MqttError(error.strerror or str(error)) from None
        self._client._create_socket_connection = lambda: library_end  # type: ignore[method-assign]
        self._carrying = asyncio.create_task(gated.run())

    async def _end_gated(self) -> None:
        """Lets the last packets leave; paho has closed its end then."""
        self._client._sock_close()
        if self._gated is not None and self._gated.library_end is not None:
            self._gated.library_end.close()
        if self._carrying is not None:
            await self._carrying

    @property
    def tcp_socket(self) -> socket.socket | None:
        """The gated TCP socket; None while there is none."""
        return None if self._gated is None else self._gated.tcp_socket

    @property
    def ipv6(self) -> bool:
        return self._gated is not None and self._gated.ipv6

    @property
    def tls_version(self) -> str | None:
        """Such as TLSv1.3; None on a connection without TLS."""
        found = self._client.socket()
        connection = getattr(found, "_socket", found)
        return connection.version() if isinstance(connection, ssl.SSLSocket) else None

    async def until_disconnected(self) -> None:
        """Raises MqttError when the connection ends."""
        async for _ in self.messages:
            pass

    async def subscribe_confirmed(self, topic: str, qos: int) -> str | None:
        """Returns None when the broker has accepted the subscription, or the reason why it did not."""
        granted = await self.subscribe(topic, qos=qos)
        if not granted:
            return f"the broker's answer to the subscription to {topic} is empty"
        code = granted[0]
        value = code.value if isinstance(code, ReasonCode) else int(code)
        if value < _REFUSED:
            return None
        return f"the broker refuses the subscription to {topic}: {code} (SUBACK {value:#04x})"

    async def must_subscribe(self, topic: str, qos: int) -> None:
        """Raises SubscriptionRefused."""
        if (refusal := await self.subscribe_confirmed(topic, qos)) is not None:
            raise SubscriptionRefused(refusal)

    async def publish_confirmed(
        self,
        topic: str,
        payload: bytes,
        retain: bool = False,
        properties: Properties | None = None,
        for_somebody: bool = False,
    ) -> str | None:
        """Publishes with QoS 1. Returns None when the broker has taken the message, or the reason why it did not.

        `for_somebody`: that nobody has subscribed to the topic is such a reason; a broker of MQTT 3.1.1 does not tell.
        Raises MqttError when the connection is lost, or the broker does not answer in time."""
        info = self._client.publish(topic, payload, 1, retain, properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc, "Could not publish message")
        answer = self._acknowledgements[info.mid] = asyncio.get_running_loop().create_future()
        try:
            code = await self._wait_for(answer, None)
        finally:
            self._acknowledgements.pop(info.mid, None)
        if for_somebody and code.value == _NO_SUBSCRIBER:
            return f"nobody has subscribed to {topic}"
        return _refusal(code, topic) if code.is_failure else None

    async def _wait_for(self, fut: Awaitable[_T], timeout: float | None) -> _T:  # noqa: ASYNC109 (of aiomqtt)
        """Raises MqttError at once when the connection ends, for which aiomqtt does not look. It also uses
        asyncio.wait_for, which in Python 3.11 loses a cancellation that comes with the answer."""
        seconds = self.timeout if timeout is None else timeout
        answer = asyncio.ensure_future(fut)
        either: set[asyncio.Future[Any]] = {answer, self._disconnected}
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise aiomqtt.MqttError(_PEER_GONE) from self._disconnected.exception()
            return answer.result()
        except TimeoutError:
            raise aiomqtt.MqttError(_TIMED_OUT) from None
        finally:
            if answer is not fut:  # a task of ours
                answer.cancel()

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        answer = self._acknowledgements.get(mid)
        if answer is None:
            super()._on_publish(client, userdata, mid, reason_code, properties)
        elif not answer.done():
            answer.set_result(reason_code)

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        if self._client.protocol == paho.MQTTv5:
            self.shares = getattr(properties, "SharedSubscriptionAvailable", 1) != 0
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        self._loop.call_soon_threadsafe(self._end_connecting)  # paho may be in the thread that connects

    def _end_connecting(self) -> None:
        """Notes an end before CONNACK, which aiomqtt ignores."""
        if not self._connected.done() and not self._disconnected.done():
            self._disconnected.set_result(None)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._handle_message(topic, bytes(message.payload), message.retain)

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


def _refusal(code: ReasonCode, topic: str) -> str:
    what = "does not let this user publish" if code.value == _DENIED else "refuses messages"
    return f"the broker {what} to {topic}: {code} (PUBACK {code.value:#04x})"


def is_unsupported_protocol(error: BaseException) -> bool:
    """Whether the broker refused the protocol version."""
    code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
    return getattr(code, "value", code) in _UNSUPPORTED_PROTOCOL


def explain(error: BaseException) -> str:
    """The cause of a failed or lost connection, in words: without errno and without source lines of C files."""
    if isinstance(error, MqttConnectError):
        return f"the broker refuses: {_CODE.sub('', str(error))}"
    text = str(error.__cause__ or error)
    plain = _NOISE.sub("", text).strip().removeprefix("[SSL] ")
    return _WORDS.get(plain, plain) or type(error).__name__
