"""A server's connection to a NATS cluster, whose MQTT gateway the cameras use: topics are mapped to subjects.

The gateway maps each `/` of a topic to a `.`, and each `.` to `//`
(https://docs.nats.io/running-a-nats-service/configuration/mqtt). NATS delivers to the subscribers of one queue group in
turn, on whatever node they are. It delivers no retained messages of MQTT to clients of NATS, and has no last will.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import TYPE_CHECKING, Any

from aiomqtt import MqttError

from sagelink.pipeline.tasks import first_error
from sagelink.transport.mqtt.aiomqtt_client import CONNECT_S, SubscriptionRefused
from sagelink.transport.mqtt.nats_cluster import NatsCluster
from sagelink.transport.mqtt.server_client import OnMessage, Session
from sagelink.transport.reconnect import Reconnector
from sagelink.transport.server_url import url_host

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_ANSWER_S = 10  # longest wait for the node's answer
_LOST_PINGS = 2  # the node is gone after so many without an answer
_CLOSE_S = 0.5  # longest wait for a node when disconnecting
_SHARED = "$share/"


class NatsClient:
    """A ServerClient, connected to one node. Errors are MqttError, like those of a BrokerClient."""

    shares = True
    retains = False

    def __init__(self, on_message: OnMessage) -> None:
        from sagelink.transport.mqtt.nats_library import EncryptedClient

        self._client = EncryptedClient()
        self._on_message = on_message
        self._subscriptions: dict[str, Subscription] = {}  # by topic
        self._denials: list[str] = []  # of the subscription or message that waits for the node's answer
        self._connected = False
        self._ended = asyncio.Event()

    async def connect(self, cluster: NatsCluster, node: tuple[str, int], identifier: str) -> None:
        host, port = node
        options: dict[str, Any] = {} if cluster.tls is None else {"tls": cluster.tls, "tls_hostname": host}
        with _converted():
            await self._client.connect(
                f"{'nats' if cluster.tls is None else 'tls'}://{url_host(host)}:{port}",
                name=identifier,
                user=cluster.username,
                password=cluster.password,
                connect_timeout=int(CONNECT_S),
                allow_reconnect=False,
                ping_interval=max(1, cluster.keepalive_s // _LOST_PINGS),
                max_outstanding_pings=_LOST_PINGS,
                error_cb=self._note_error,
                closed_cb=self._note_end,
                **options,
            )
        self._connected = True

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.close()

    async def subscribe_confirmed(self, topic: str, qos: int) -> str | None:
        """See ServerClient. NATS has no QoS."""
        if topic in self._subscriptions:
            return None
        group, plain = "", topic
        if topic.startswith(_SHARED):
            group, _, plain = topic.removeprefix(_SHARED).partition("/")

        async def take(message: Msg) -> None:
            self._on_message(topic_of(message.subject), message.data, False)

        with _converted():
            self._subscriptions[topic] = await self._client.subscribe(subject_of(plain), queue=group, cb=take)
        return await self._answer()

    async def must_subscribe(self, topic: str, qos: int) -> None:
        if (refusal := await self.subscribe_confirmed(topic, qos)) is not None:
            raise SubscriptionRefused(refusal)

    async def unsubscribe(self, topic: str, /) -> None:
        subscription = self._subscriptions.pop(topic, None)
        if subscription is not None:
            with _converted():
                await subscription.unsubscribe()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        /,
        qos: int = 0,
        retain: bool = False,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (of aiomqtt)
    ) -> None:
        """See ServerClient. NATS retains nothing for the clients of its MQTT gateway."""
        with _converted():
            await self._client.publish(subject_of(topic), payload)

    async def publish_confirmed(self, topic: str, payload: bytes, retain: bool = False) -> str | None:
        await self.publish(topic, payload, 1, retain)
        return await self._answer()

    async def until_disconnected(self) -> None:
        await self._ended.wait()
        raise MqttError(str(self._client.last_error or "") or "the connection broke off")

    async def _answer(self) -> str | None:
        """Waits until the node has processed everything. Returns what it has denied; None if it denied nothing."""
        with _converted():
            await self._client.flush(_ANSWER_S)
        denied, self._denials = self._denials, []
        return denied[-1] if denied else None

    async def _note_error(self, error: Exception) -> None:
        if not self._connected:
            raise error  # else nats-py would try the same node for two minutes
        if "permissions violation" in str(error).lower():
            self._denials = [str(error)]

    async def _note_end(self) -> None:
        self._ended.set()


class NatsConnection(Reconnector):
    """Calls `session(client)` with each connected client, like BrokerConnection; tries every node before it pauses."""

    def __init__(self, cluster: NatsCluster, session: Session, *, identifier: str, on_message: OnMessage) -> None:
        super().__init__("broker", cluster.url, self._run_connection)
        self._cluster = cluster
        self._scheme = cluster.url.partition("://")[0]
        self._session = session
        self._identifier = identifier
        self._on_message = on_message

    async def _run_connection(self) -> str:
        """One connection from start to end. Returns the reason why it ended, or why no node takes one."""
        reasons = []
        for node in random.sample(self._cluster.nodes, len(self._cluster.nodes)):
            self._tried = f"{self._scheme}://{url_host(node[0])}:{node[1]}"
            client, connected = NatsClient(self._on_message), False
            try:
                await client.connect(self._cluster, node, self._identifier)
                connected = True
                await self._session(client)
            except* MqttError as errors:
                reasons.append(f"{url_host(node[0])}:{node[1]}: {first_error(errors)}")
            finally:
                await client.close()
            if connected:
                break
        return "; ".join(reasons) or "the connection ended"


def subject_of(topic: str) -> str:
    """The subject of a topic, or of a topic filter."""
    levels = (level.replace(".", "//") for level in topic.split("/"))
    return ".".join({"+": "*", "#": ">"}.get(level, level) for level in levels)


def topic_of(subject: str) -> str:
    return "/".join(level.replace("//", ".") for level in subject.split("."))


@contextlib.contextmanager
def _converted() -> Any:
    """Makes a MqttError of each error of nats-py."""
    from nats import errors

    try:
        yield
    except TimeoutError:
        raise MqttError("the node does not answer") from None
    except OSError as error:
        number = error.errno or 0  # negative for a name that is not found
        raise MqttError(os.strerror(number) if number > 0 else error.strerror or str(error)) from None
    except errors.Error as error:
        raise MqttError(str(error).removeprefix("nats: ").strip("'") or type(error).__name__) from None
