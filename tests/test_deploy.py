"""The steps of docs/deploy.md with a real broker: its certificate, its users, and who may see what."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import aiomqtt
import pytest
import yaml

from sagelink.pipeline.config import MqttConfig
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from tests.brokers import Mosquitto

DEPLOY = Path(__file__).parents[1] / "deploy"
USERS = ("gate-north", "gate-south", "server", "operator")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What /etc/sagelink holds."""
    made = tmp_path_factory.mktemp("etc")
    subprocess.run([DEPLOY / "certificates.sh", made, "127.0.0.1"], check=True, capture_output=True)
    for index, user in enumerate(USERS):
        create = ["-c"] if index == 0 else []
        subprocess.run(["mosquitto_passwd", "-b", *create, made / "passwords", user, f"{user}-password"], check=True)
    (made / "acl").write_text((DEPLOY / "acl").read_text())
    return made


def config(folder: Path, user: str) -> MqttConfig:
    (folder / f"{user}.password").write_text(f"{user}-password\n")
    return MqttConfig(username=user, password_file=folder / f"{user}.password", ca=folder / "ca.pem")


async def test_a_site_with_tls_users_and_access_control(folder: Path) -> None:
    text = (DEPLOY / "mosquitto.conf").read_text().replace("/etc/sagelink", str(folder))
    settings = [line for line in text.splitlines() if not line.startswith("listener")]
    topics, hello = Topics("sagelink"), CameraInfo(14, 16, "0123", 5.0)
    with Mosquitto(*settings, scheme="mqtts") as mosquitto:

        def broker(user: str):
            return open_broker(mosquitto.url, config(folder, user), "url")

        north = MqttEdgeLink(broker("gate-north"), topics, "gate-north", ["door"], hello, must_connect=True)
        async with (
            MqttServerLink(broker("server"), topics, "servers") as server,
            north,
            _spy(broker("gate-south")) as spy,
        ):
            assert await north.send("door", b"evidence") is None
            async with asyncio.timeout(10):
                message = await anext(server.messages())
                await server.reply(message, b"verdict")
                assert (message.sender, message.data) == ("gate-north/door", b"evidence")
                assert await anext(north.replies()) == ("door", b"verdict")
                assert list(server.cameras) == ["gate-north/door"]
            await spy.publish("sagelink/gate-north/door/verdict", b"forged", qos=1)
            await spy.publish("sagelink/gate-south/seen", b"", qos=1)
            assert len(spy.messages) == 0


@contextlib.asynccontextmanager
async def _spy(broker):
    """A camera box that listens to all that it can get."""
    async with aiomqtt.Client(
        broker.host, broker.port, username=broker.username, password=broker.password, tls_context=broker.tls
    ) as client:
        await client.subscribe("#", qos=1)
        yield client


def test_the_compose_file_and_the_units_name_what_exists() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"broker", "server", "edge"}
    assert (DEPLOY.parent / services["server"]["build"]["dockerfile"]).is_file()
    for unit, command in (("sagelink-serve", "sagelink serve"), ("sagelink-run", "sagelink run")):
        text = (DEPLOY / f"{unit}.service").read_text()
        assert command in text
        assert "Restart=always" in text
