"""Topics as subjects, addresses of a cluster, and a server's connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ports import free_port
from sagelink.app.server.link import listener_factory
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.transport.mqtt.nats_client import subject_of, topic_of
from sagelink.transport.mqtt.nats_cluster import open_cluster
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from tests.nats import NatsNode, nats_node

TOPICS = Topics("site")


@pytest.mark.parametrize(
    ("topic", "subject"),
    [
        ("site/a/door/evidence", "site.a.door.evidence"),
        ("site/+/+/evidence", "site.*.*.evidence"),
        ("site/#", "site.>"),
        ("site/a.b/door/state", "site.a//b.door.state"),
    ],
)
def test_a_topic_is_the_subject_of_the_gateway(topic: str, subject: str) -> None:
    assert subject_of(topic) == subject
    if "*" not in subject and ">" not in subject:
        assert topic_of(subject) == topic


def test_an_address_lists_the_nodes_and_has_the_credentials_of_mqtt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGELINK_MQTT_USERNAME", "server")
    monkeypatch.setenv("SAGELINK_MQTT_PASSWORD", "secret")
    cluster = open_cluster("nats://a,b:4300,[::1]", MqttConfig(), "serve.listen")
    assert cluster.nodes == (("a", 4222), ("b", 4300), ("::1", 4222))
    assert cluster.url == "nats://a:4222,b:4300,[::1]:4222"
    assert (cluster.username, cluster.password, cluster.tls) == ("server", "secret", None)
    assert "secret" not in repr(cluster)
    assert open_cluster("nats+tls://a", MqttConfig(), "serve.listen").tls is not None


@pytest.mark.parametrize("url", ["nats://", "nats://a,", "nats://a/path", "nats://user:secret@a", "nats://a:none"])
def test_a_wrong_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"serve\.listen") as error:
        open_cluster(url, MqttConfig(), "serve.listen")
    assert "secret" not in str(error.value)


def test_a_server_without_a_group_is_refused() -> None:
    with pytest.raises(UsageError, match=r"serve\.group is empty"):
        listener_factory(load_config(None, {"serve.listen": "nats://a", "serve.group": ""}))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NatsNode]:
    with nats_node(tmp_path) as node:
        yield node


async def test_a_server_takes_the_node_that_answers(node: NatsNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagelink.transport.mqtt.server._ANSWERED_S", 0.0)
    url = f"nats://127.0.0.1:{free_port()},127.0.0.1:{node.client}"
    async with MqttServerLink(open_cluster(url, MqttConfig(), "url"), TOPICS, "servers") as link:
        assert link.trouble is None


async def test_no_node_answers() -> None:
    cluster = open_cluster(f"nats://127.0.0.1:{free_port()},127.0.0.1:{free_port()}", MqttConfig(), "url")
    with pytest.raises(SagelinkError, match="refused.*;.*refused"):
        async with MqttServerLink(cluster, TOPICS, "servers"):
            pass


async def test_a_node_without_tls_never_gets_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGELINK_MQTT_USERNAME", "user")
    monkeypatch.setenv("SAGELINK_MQTT_PASSWORD", "secret-password")
    received = b""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        writer.write(b'INFO {"server_id": "x", "version": "2.10.0", "auth_required": true, "max_payload": 1000}\r\n')
        received += await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        cluster = open_cluster(f"nats+tls://127.0.0.1:{port}", MqttConfig(), "url")
        with pytest.raises(SagelinkError, match="does not use TLS"):
            async with MqttServerLink(cluster, TOPICS, "servers"):
                pass
    assert received == b""
