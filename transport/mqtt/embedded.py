"""Runs an MQTT 3.1.1 broker (amqtt) inside the server's process, for demos and a few cameras."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from amqtt.broker import Broker as AmqttBroker
from amqtt.broker import BrokerContext
from amqtt.errors import AMQTTError
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from sagelink.net.access_guard import require_secret
from sagelink.pipeline.credentials import same_secret
from sagelink.pipeline.errors import UsageError

_STOP_S = 1.0


class OneUser(BaseAuthPlugin):
    """An amqtt plugin that accepts one user name and password: those that the server itself uses."""

    @dataclass
    class Config:
        username: str = ""
        password: str = ""

    def __init__(self, context: BrokerContext) -> None:
        super().__init__(context)
        expected: OneUser.Config = self.config
        self._expected = (expected.username, expected.password)

    async def authenticate(self, *, session: Session) -> bool:
        username, password = self._expected
        return same_secret(session.username or "", username) and same_secret(session.password or "", password)


@contextlib.asynccontextmanager
async def embedded_broker(host: str, port: int, username: str | None, password: str | None) -> AsyncIterator[None]:
    """Runs the broker while the body runs.

    Raises UsageError if the address is in use, or if other hosts can reach it and no password is set."""
    hint = "Set mqtt.username and mqtt.password_file, or SAGELINK_MQTT_USERNAME and SAGELINK_MQTT_PASSWORD"
    require_secret(host, password, "password", f"serve.embedded_broker {host}:{port}", hint)
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # amqtt warns about every client that connects or leaves
    plugins: dict[str, dict[str, object]]
    if password:
        plugins = {f"{__name__}.{OneUser.__name__}": {"username": username, "password": password}}
    else:
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    broker = AmqttBroker({"listeners": {"default": {"type": "tcp", "bind": address}}, "plugins": plugins})
    try:
        await broker.start()
    except (AMQTTError, OSError) as error:
        raise UsageError(f"serve.embedded_broker: cannot listen on {host}:{port}: {error.__cause__ or error}") from None
    try:
        yield
    finally:
        with contextlib.suppress(TimeoutError, AMQTTError):
            async with asyncio.timeout(_STOP_S):
                await broker.shutdown()
