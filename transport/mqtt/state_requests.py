"""Asks nodes to publish their states again, each at most once in a while: the broker may have stored none."""

from __future__ import annotations

import contextlib
import math
import time

import aiomqtt

from sagelink.transport.mqtt.server_client import ServerClient
from sagelink.transport.mqtt.topics import Topics

_ASK_AGAIN_S = 2.0  # between two requests
_MAX_ASKED = 1000  # nodes within this time


class StateRequests:
    """The requests of one server."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._asked_s: dict[str, float] = {}  # time of the last request, by node; "" for all

    def forget(self) -> None:
        """Each node may be asked at once: the connection is a new one."""
        self._asked_s.clear()

    async def ask(self, client: ServerClient, node: str) -> None:
        """Asks a node, or all with an empty `node`, unless it was asked a moment ago."""
        now_s = time.monotonic()
        if now_s - self._asked_s.get(node, -math.inf) < _ASK_AGAIN_S:
            return
        self._asked_s = {known: at_s for known, at_s in self._asked_s.items() if now_s - at_s < _ASK_AGAIN_S}
        if len(self._asked_s) >= _MAX_ASKED:
            return
        self._asked_s[node] = now_s
        with contextlib.suppress(aiomqtt.MqttError):
            await client.publish(self._topics.state_request(node), b"", qos=0)
