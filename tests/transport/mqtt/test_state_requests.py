"""Requests for states: each node is asked at most once in a while, and only so many nodes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sagelink.transport.mqtt.state_requests import StateRequests
from sagelink.transport.mqtt.topics import Topics


class Client:
    """Records the topics of what is published."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        self.topics.append(topic)


async def test_a_node_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr("sagelink.transport.mqtt.state_requests.time", clock)
    topics, client = Topics("test"), Client()
    requests = StateRequests(topics)
    for node in ("north", "north", "south", ""):
        await requests.ask(client, node)
    assert client.topics == [topics.state_request(node) for node in ("north", "south", "")]
    now_s = 102.5
    await requests.ask(client, "north")
    requests.forget()
    await requests.ask(client, "north")
    assert len(client.topics) == 5


async def test_invented_nodes_cause_a_limited_number_of_requests() -> None:
    client = Client()
    requests = StateRequests(Topics("test"))
    for number in range(3000):
        await requests.ask(client, f"node{number}")
    assert len(client.topics) == 1000
