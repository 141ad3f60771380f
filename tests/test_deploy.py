"""The steps of docs/deploy.md with a real broker: its certificate, its users, and their access rights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
import yaml

from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.link import MqttConfig
from sagelink.stages.nvr.open import open_event_capture
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import Broker, message_auth, open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics, encode_state
from sagelink.transport.reply_message import encode_reply
from tests.brokers import Mosquitto
from tests.fakes import make_reply
from tests.patience import PATIENCE_S

DEPLOY = Path(__file__).parents[1] / "deploy"
USERS = ("gate-north", "gate-south", "server", "operator")
SILENCE_S = 0.5


def evidence(seq: int) -> bytes:
    return encode_evidence(EvidenceMessage(seq, 14, 16, 1, np.arange(3), b"payload"))


def reply(seq: int) -> bytes:
    return encode_reply(make_reply(seq))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of /etc/sagelink."""
    etc = tmp_path_factory.mktemp("etc")
    subprocess.run([DEPLOY / "certificates.sh", etc, "127.0.0.1"], check=True, capture_output=True)
    for index, user in enumerate(USERS):
        create = ["-c"] if index == 0 else []
        subprocess.run(["mosquitto_passwd", "-b", *create, etc / "passwords", user, f"{user}-password"], check=True)
    key = subprocess.run(["openssl", "rand", "-hex", "32"], check=True, capture_output=True).stdout
    (etc / "mac.key").write_bytes(key)
    (etc / "acl").write_text((DEPLOY / "acl").read_text())
    return etc


def config(folder: Path, user: str) -> MqttConfig:
    (folder / f"{user}.password").write_text(f"{user}-password\n")
    return MqttConfig(username=user, password_file=folder / f"{user}.password", ca=folder / "ca.pem")


async def test_a_site_with_tls_users_and_access_control(folder: Path) -> None:
    text = (DEPLOY / "mosquitto.conf").read_text().replace("/etc/sagelink", str(folder))
    settings = [line for line in text.splitlines() if not line.startswith("listener")]
    topics, camera_info = Topics("sagelink"), CameraInfo(14, 16, "0123", 5.0)
    with Mosquitto(*settings, scheme="mqtts") as mosquitto:

        def broker(user: str) -> Broker:
            return open_broker(mosquitto.url, config(folder, user), "url")

        auth = message_auth(MqttConfig(mac_key_file=folder / "mac.key"))
        north = MqttEdgeLink(
            broker("gate-north"), topics, "gate-north", ["door"], camera_info, must_connect=True, auth=auth
        )
        async with (
            MqttServerLink(broker("server"), topics, "servers", auth=auth) as server,
            north,
            _client(broker("gate-south")) as south,
            _client(broker("server")) as server_client,
        ):
            await south.subscribe("#", qos=1)
            assert await north.send("door", evidence(1)) is None
            async with asyncio.timeout(PATIENCE_S):
                message = await anext(server.messages())
                await server.reply(message, reply(1))
                assert (message.sender, message.data, message.refusal) == ("gate-north/door", evidence(1), None)
                assert await anext(north.replies()) == ("door", reply(1))
                assert list(server.cameras) == ["gate-north/door"]
                # A forged verdict of another node does not arrive; the server's next one does.
                await south.publish("sagelink/gate-north/door/verdict", b"forged", qos=1)
                assert await north.send("door", evidence(2)) is None
                await server.reply(await anext(server.messages()), reply(2))
                assert await anext(north.replies()) == ("door", reply(2))
                # A state that a dead run's last will overwrites comes back: the box may read its own states.
                offline = encode_state(b"old", online=False)
                async with _client(broker("gate-north")) as dead:
                    await dead.publish("sagelink/gate-north/state", offline, qos=1, retain=True)
                await server_client.subscribe("sagelink/gate-north/state", qos=1)
                async for each in server_client.messages:
                    if json.loads(each.payload)["online"]:
                        break
                # Node south has received nothing but its own verdict, and nothing else follows.
                await server_client.publish("sagelink/gate-south/door/verdict", b"for south", qos=1)
                async for each in south.messages:
                    if not each.topic.value.endswith("/presence"):  # of servers, which every node may read
                        break
                assert each.payload == b"for south"
            await _is_silent(anext(south.messages))
            await _is_silent(anext(north.replies()))


async def _is_silent(next_message: Awaitable[object]) -> None:
    """Waits until no message has arrived for a while."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await next_message


@contextlib.asynccontextmanager
async def _client(broker: Broker) -> AsyncIterator[aiomqtt.Client]:
    """A plain MQTT client with the rights of the broker's user."""
    async with aiomqtt.Client(
        *broker.addresses[0], username=broker.username, password=broker.password, tls_context=broker.tls
    ) as client:
        yield client


def test_the_compose_file_and_the_units_name_existing_files_and_commands() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"broker", "key", "server", "edge"}
    for name in ("server", "edge"):  # authentication is on, with the key that the service `key` creates
        assert "--set=mqtt.mac_key_file=/key/mac.key" in services[name]["command"]
        assert "key:/key:ro" in services[name]["volumes"]
        assert services[name]["depends_on"]["key"] == {"condition": "service_completed_successfully"}
    assert (DEPLOY.parent / services["server"]["build"]["dockerfile"]).is_file()
    units = {"sagelink-serve": "sagelink serve", "sagelink-run": "sagelink run", "sagelink-box": "sagelink run"}
    for unit, command in units.items():
        text = (DEPLOY / f"{unit}.service").read_text()
        assert command in text
        assert "Restart=always" in text


def test_the_compose_file_for_frigate_runs_a_valid_configuration() -> None:
    services = yaml.safe_load((DEPLOY / "compose-frigate.yaml").read_text())["services"]
    assert set(services) == {"broker", "frigate", "sagelink"}
    run, source, *options = services["sagelink"]["command"]
    assert run == "run"
    settings = dict(option.removeprefix("--set=").split("=", 1) for option in options if option.startswith("--set="))
    config = load_config(None, {"capture.source": source, **settings})
    assert config.frigate.url == "http://frigate:5000"
    assert open_event_capture(config, config.all_cameras[0]).source == source
