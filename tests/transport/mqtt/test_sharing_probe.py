"""Whether a broker shares is found out, however slow it is."""

from __future__ import annotations

import asyncio

import pytest

from sagelink.transport.mqtt import sharing_probe
from sagelink.transport.mqtt.sharing_probe import SharingProbe
from sagelink.transport.mqtt.topics import Topics

SHARED, PLAIN = "sagelink/server/one/probe", "sagelink/server/one-plain/probe"


class FakeBroker:
    """A client and its broker, which delivers in one go when it has taken `batch` messages, or nothing."""

    def __init__(self, probe: SharingProbe, shares: bool, batch: int = 1, says: bool | None = None) -> None:
        self.shares = says  # what it says
        self._probe, self._has_sharing, self._batch = probe, shares, batch
        self.subscribed: set[str] = set()
        self._waiting: list[str] = []

    async def subscribe_confirmed(self, topic: str, qos: int) -> str | None:
        self.subscribed.add(topic)
        return None

    async def unsubscribe(self, topic: str) -> None:
        self.subscribed.remove(topic)

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        self._waiting.append(topic)
        if len(self._waiting) == self._batch:
            asyncio.get_running_loop().call_later(10 * sharing_probe._OVERTAKEN_S, self._deliver)

    def _deliver(self) -> None:
        for topic in self._waiting:
            if topic in self.subscribed or (self._has_sharing and f"$share/servers/{topic}" in self.subscribed):
                self._probe.observe(topic)


@pytest.fixture(autouse=True)
def _in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing_probe, "_OVERTAKEN_S", 0.01)


@pytest.mark.parametrize("shares", [True, False])
async def test_a_slow_broker_is_waited_for(shares: bool) -> None:
    probe = SharingProbe(Topics("sagelink"), "one")
    broker = FakeBroker(probe, shares, batch=2)
    assert await probe.broker_shares(broker, "servers") is shares
    assert not broker.subscribed


@pytest.mark.parametrize("says", [True, False])
async def test_a_broker_that_says_it_is_not_asked(says: bool) -> None:
    probe = SharingProbe(Topics("sagelink"), "one")
    broker = FakeBroker(probe, not says, says=says)
    assert await probe.broker_shares(broker, "servers") is says


async def test_a_broker_that_delivers_nothing_does_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing_probe, "_PATIENCE_S", 0.01)
    probe = SharingProbe(Topics("sagelink"), "one")
    assert not await probe.broker_shares(FakeBroker(probe, shares=True, batch=3), "servers")


def test_its_topics_are_its_own() -> None:
    probe = SharingProbe(Topics("sagelink"), "one")
    assert [probe.observe(topic) for topic in (SHARED, PLAIN, "sagelink/server/two/probe")] == [True, True, False]
