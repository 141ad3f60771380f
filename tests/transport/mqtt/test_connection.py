"""A broker with several addresses: each is tried in turn, each attempt is charged, and a lost connection moves on."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from bench.ports import free_port
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.tasks import background
from sagelink.transport.mqtt.address import Broker, open_broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.wire_cost import WireCharger
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S


def brokers(*ports: int) -> Broker:
    return open_broker("mqtt://" + ",".join(f"127.0.0.1:{port}" for port in ports), MqttConfig(), "url")


class Connected:
    """A connection whose sessions only wait for their end."""

    def __init__(self, broker: Broker) -> None:
        self.charger = WireCharger(WireLedger(UplinkBudget(1e6, 1.0), time.monotonic))
        self.connection = BrokerConnection(
            broker, self._session, identifier="edge", on_message=lambda *_: None, charger=self.charger
        )

    async def _session(self, client: BrokerClient) -> None:
        self.connection.established()
        await client.until_disconnected()

    async def until_connected_to(self, port: int, caplog: pytest.LogCaptureFixture) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while f"event=connected broker=mqtt://127.0.0.1:{port}" not in caplog.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_each_address_is_tried_before_the_next_pause_and_charged() -> None:
    ports = [free_port() for _ in range(3)]
    one, three = Connected(brokers(ports[0])), Connected(brokers(*ports))
    assert await one.connection._run_connection() == "Connection refused"
    assert one.charger.attempt_bits > 0
    reason = await three.connection._run_connection()
    assert reason == "; ".join(f"127.0.0.1:{port}: Connection refused" for port in ports)
    assert three.charger.attempt_bits == 3 * one.charger.attempt_bits


async def test_a_connection_moves_to_the_next_address_when_its_broker_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    dead = free_port()
    with Mosquitto() as first, Mosquitto() as second:
        connected = Connected(brokers(dead, first.port, second.port))
        async with background(connected.connection.run()):
            await connected.until_connected_to(first.port, caplog)
            assert not any("event=disconnected" in message for message in caplog.messages)  # nothing has failed
            first.kill()
            await connected.until_connected_to(second.port, caplog)
            assert f"127.0.0.1:{first.port}: the connection broke off" in caplog.text
            second.kill()
            async with asyncio.timeout(PATIENCE_S):
                while (connected.connection.trouble or "").count("Connection refused") < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
