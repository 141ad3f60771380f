"""What a server link needs of one connection to a broker: `BrokerClient` (MQTT) and `NatsClient` (NATS) have it.

Topics are MQTT's. Methods raise MqttError when the connection has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

OnMessage = Callable[[str, bytes, bool], None]  # takes topic, payload, and whether the broker had retained it


class ServerClient(Protocol):
    """A connected client."""

    @property
    def shares(self) -> bool | None:
        """The broker has shared subscriptions; None where it does not tell."""
        ...

    @property
    def retains(self) -> bool:
        """The broker delivers retained messages to this client."""
        ...

    async def subscribe_confirmed(self, topic: str, qos: int) -> str | None:
        """Returns None when the broker has accepted the subscription, or the reason why it did not."""
        ...

    async def must_subscribe(self, topic: str, qos: int) -> None:
        """Raises SubscriptionRefused."""
        ...

    async def unsubscribe(self, topic: str, /) -> None: ...

    async def publish(
        self,
        topic: str,
        payload: bytes,
        /,
        qos: int = ...,
        retain: bool = ...,
        *,
        timeout: float | None = ...,  # noqa: ASYNC109 (of aiomqtt)
    ) -> None: ...

    async def publish_confirmed(self, topic: str, payload: bytes, retain: bool = ...) -> str | None:
        """Returns None when the broker has taken the message, or the reason why it did not."""
        ...

    async def until_disconnected(self) -> None:
        """Raises MqttError when the connection ends."""
        ...


Session = Callable[[ServerClient], Awaitable[None]]  # serves one connection until it ends
