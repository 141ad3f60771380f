"""Finds out whether a broker that does not say so (MQTT 3.1.1) has shared subscriptions.

The server sends itself two messages: one that arrives only if the broker takes its subscription as a shared one, and
then one that arrives in any case. The second one shows that the broker is past the first, however slow it is.
"""

from __future__ import annotations

import asyncio
import contextlib

from sagelink.transport.mqtt.server_client import ServerClient
from sagelink.transport.mqtt.topics import Topics

_PATIENCE_S = 15.0  # longest wait for the second message
_OVERTAKEN_S = 1.0  # a broker may deliver the first message so long after the second


class SharingProbe:
    """The probe of one server. `observe` takes its messages."""

    def __init__(self, topics: Topics, server: str) -> None:
        """`server`: identifies this server."""
        self._shared_topic, self._plain_topic = topics.probe(server), topics.probe(f"{server}-plain")
        self._shared, self._plain = asyncio.Event(), asyncio.Event()

    def observe(self, topic: str) -> bool:
        """Takes a message; false if it is not the probe's."""
        if topic == self._shared_topic:
            self._shared.set()
            self._plain.set()  # no need to wait any more
        elif topic == self._plain_topic:
            self._plain.set()
        else:
            return False
        return True

    async def broker_shares(self, client: ServerClient, group: str) -> bool:
        """Whether the broker of a client shares the messages of a group."""
        if client.shares is not None:
            return client.shares
        self._shared.clear()
        self._plain.clear()
        subscription = f"$share/{group}/{self._shared_topic}"
        if await client.subscribe_confirmed(subscription, qos=0) is not None:
            return False
        await client.subscribe_confirmed(self._plain_topic, qos=0)
        for topic in (self._shared_topic, self._plain_topic):
            await client.publish(topic, b"probe", qos=0)
        for event, longest_s in ((self._plain, _PATIENCE_S), (self._shared, _OVERTAKEN_S)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(longest_s):
                    await event.wait()
        for topic in (subscription, self._plain_topic):
            await client.unsubscribe(topic)
        return self._shared.is_set()
