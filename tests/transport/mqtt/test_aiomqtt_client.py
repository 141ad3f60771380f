"""The MQTT client between aiomqtt and the links."""

from __future__ import annotations

import asyncio
import gc
import math

import aiomqtt
import pytest

from sagelink.pipeline.config.link import MqttConfig
from sagelink.transport.mqtt.address import Broker, open_broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient, NoConnack, explain
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S


def connect(broker: Broker, **options: object) -> BrokerClient:
    v5 = aiomqtt.ProtocolVersion.V5
    return BrokerClient(broker, broker.addresses[0], "edge", v5, None, lambda topic, payload, retained: None, **options)


async def test_a_cancellation_that_arrives_together_with_the_answer_is_obeyed() -> None:
    broker = open_broker("mqtt://127.0.0.1", MqttConfig(), "url")
    client = connect(broker)
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client._wait_for(answer, timeout=None))
    await asyncio.sleep(0)
    answer.set_result(None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_subscription_that_the_broker_does_not_confirm_is_an_error() -> None:
    with Mosquitto() as mosquitto:
        broker = open_broker(mosquitto.url, MqttConfig(), "url")
        client = connect(broker)
        async with client:
            with pytest.raises(aiomqtt.MqttError, match="timed out"):
                await client.subscribe("state", timeout=0)


async def test_a_connection_that_ends_before_the_broker_answers_is_noticed_at_once() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"edge")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        broker = open_broker(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}", MqttConfig(), "url")
        with pytest.raises(NoConnack, match="does the port use TLS"):  # else "no answer within 400 s"
            await connect(broker, connect_s=PATIENCE_S).__aenter__()


@pytest.mark.parametrize("together", [True, False])
async def test_a_broker_that_closes_the_connection_is_noticed_at_once(
    together: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes.fromhex("2003000000"))  # CONNACK of MQTT 5
        if not together:
            await writer.drain()
            await reader.readuntil(b"state")  # the name of the topic
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        broker = open_broker(f"mqtt://127.0.0.1:{port}", MqttConfig(), "url")

        async def use() -> None:
            client = connect(broker)
            async with client:
                client.timeout = math.inf
                await client.subscribe("state")

        with pytest.raises(aiomqtt.MqttError) as error:
            await use()
    assert explain(error.value) == "the connection broke off"
    del error
    gc.collect()
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol (_ssl.c:1006)", "use TLS?"),
        ("WebSocket handshake error", "WebSocket for MQTT"),
        ("[Errno 111] Connection refused", "Connection refused"),
        ("", "MqttError"),
        ("[code:4] The client is not currently connected.", "the connection broke off"),
    ],
)
def test_a_failed_connection_is_explained_in_words(text: str, words: str) -> None:
    assert words in explain(aiomqtt.MqttError(text))
