"""Opens the server's link to its cameras, as `serve` in the configuration says: an MQTT broker, NATS, or WebRTC."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Protocol

from sagelink.models.loading import Model
from sagelink.monitor.metrics import ServerMetrics
from sagelink.net.http import parse_address
from sagelink.net.optional_aiortc import need_aiortc
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.urls import is_webrtc
from sagelink.transport.link import CameraInfo, ServerLink
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker, message_auth, open_broker
from sagelink.transport.mqtt.embedded import embedded_broker
from sagelink.transport.mqtt.nats_cluster import ALSO_NATS, NatsCluster, is_nats, open_cluster
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.webrtc.address import ALSO_WEBRTC, SignallingEndpoint, open_signalling_endpoint

if TYPE_CHECKING:
    from sagelink.transport.webrtc.browser_session import BrowserSettings

_RETAINED_S = 0.5  # after subscribing, the retained announcements of cameras arrive within this time


class ListeningLink(ServerLink, Protocol):
    """A server's open link."""

    @property
    def url(self) -> str: ...

    @property
    def trouble(self) -> str | None:
        """The reason why the server serves no camera now; None while it can."""
        ...

    def serve_fitting(self, misfit: Callable[[CameraInfo], str | None]) -> None:
        """Where servers share frames, takes part only while a camera fits. `misfit`: why a camera does not."""
        ...

    def close(self) -> None:
        """Takes no more messages; replies to messages that are inside are sent until the link is left."""
        ...


class ListenerFactory(Protocol):
    """Opens the link, when everything else is ready."""

    def __call__(self, metrics: ServerMetrics, model: Model) -> AbstractAsyncContextManager[ListeningLink]: ...


def listener_factory(config: Config) -> ListenerFactory:
    """The factory for `serve.listen` or `serve.embedded_broker`. Raises UsageError."""
    listen, embedded = config.serve.listen, config.serve.embedded_broker
    if bool(listen) == bool(embedded):
        raise UsageError(
            "serve: name one of serve.listen (mqtt://host:port or webrtc+http://host:port) and serve.embedded_broker "
            "(host:port), not both"
        )
    if is_webrtc(listen):
        need_aiortc("serve.listen")
        endpoint = open_signalling_endpoint(listen, config.webrtc, "serve.listen")
        _check_certificate(config, endpoint)
        return lambda metrics, model: _webrtc(config, endpoint, metrics, model)
    broker = _broker(config) if listen else _embedded(config)
    auth = message_auth(config.mqtt)
    return lambda metrics, _: _mqtt(config, broker, auth, metrics)


def _broker(config: Config) -> Broker | NatsCluster:
    listen = config.serve.listen
    if not is_nats(listen):
        return open_broker(listen, config.mqtt, "serve.listen", ALSO_NATS + ALSO_WEBRTC)
    if not config.serve.group:
        raise UsageError(
            f"serve.group is empty, but serve.listen is {listen}: servers share frames as a queue group of NATS; "
            "accepted: a name"
        )
    return open_cluster(listen, config.mqtt, "serve.listen")


def _embedded(config: Config) -> Broker:
    embedded = config.serve.embedded_broker
    host, port = parse_address(embedded, "serve.embedded_broker")
    if port == 0:
        raise UsageError(f"serve.embedded_broker {embedded!r}: cameras must know the port; accepted: 1 to 65535")
    broker = open_broker(f"mqtt://{embedded}", config.mqtt, "serve.embedded_broker")
    own_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (how this process reaches it)
    return dataclasses.replace(broker, addresses=((own_host, port),), protocol="3.1.1")


def _check_certificate(config: Config, endpoint: SignallingEndpoint) -> None:
    """Raises UsageError unless the certificate files fit the address."""
    files = {"webrtc.certificate": config.webrtc.certificate, "webrtc.key": config.webrtc.key}
    for key, path in files.items():
        if endpoint.tls and (path is None or not path.is_file()):
            found = "not set" if path is None else f"{str(path)!r}, which is not a file"
            raise UsageError(f"serve.listen is {endpoint.url}, but {key} is {found}; accepted: a PEM file")
        if not endpoint.tls and path is not None:
            raise UsageError(
                f"{key} is set, but serve.listen is {endpoint.url}, which is not encrypted; accepted: webrtc+https://"
            )
    if endpoint.tls:
        try:
            certificate, key_file = map(str, files.values())
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key_file, password="")
        except (ssl.SSLError, OSError) as error:
            raise UsageError(
                f"webrtc.certificate {str(config.webrtc.certificate)!r} and webrtc.key {str(config.webrtc.key)!r}: "
                f"{error}; accepted: a PEM certificate and its own key, without a password"
            ) from None


@contextlib.asynccontextmanager
async def _mqtt(
    config: Config, broker: Broker | NatsCluster, auth: MessageAuth | None, metrics: ServerMetrics
) -> AsyncIterator[MqttServerLink]:
    async with AsyncExitStack() as stack:
        if config.serve.embedded_broker:
            where = parse_address(config.serve.embedded_broker)
            await stack.enter_async_context(embedded_broker(*where, broker.username, broker.password))
        link = MqttServerLink(broker, Topics(config.mqtt.prefix), config.serve.group, metrics.connected.set, auth)
        await stack.enter_async_context(link)
        await asyncio.sleep(_RETAINED_S)
        yield link


@contextlib.asynccontextmanager
async def _webrtc(
    config: Config, endpoint: SignallingEndpoint, metrics: ServerMetrics, model: Model
) -> AsyncIterator[ListeningLink]:
    from sagelink.app.server.browser_cameras import browser_settings
    from sagelink.transport.webrtc.server import WebRtcServerLink

    own = config.webrtc
    settings: AbstractContextManager[BrowserSettings | None] = contextlib.nullcontext()
    if own.max_viewers:
        settings = browser_settings(model, config.capture.resize, own.max_viewers)
    with settings as browsers:
        async with WebRtcServerLink(
            endpoint,
            certificate=own.certificate,
            key=own.key,
            part_wait_s=own.part_wait,
            max_peers=own.max_peers,
            browsers=browsers,
        ) as link:
            metrics.connected.set(True)
            metrics.viewers.set_function(lambda: link.viewers)
            yield link
