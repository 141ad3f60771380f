"""`sagelink serve`: the server as a process of its own, behind an MQTT broker."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

import torch
from prometheus_client import CollectorRegistry

from models import zoo
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.metrics import ServerMetrics
from pipeline.tasks import leave_threads_behind, on_signals
from pipeline.web import parse_address, serve_http
from server.batch import BatchLimits
from server.classify import Classifier
from server.health import health_app
from server.service import Service
from transport.mqtt.address import Broker, open_broker
from transport.mqtt.embedded import embedded_broker
from transport.mqtt.server import MqttServerLink
from transport.mqtt.topics import Topics

log = logging.getLogger(__name__)

_RETAINED_S = 0.5  # what cameras have announced comes within this time of subscribing
_DRAIN_S = 1.0  # for the frames inside when it ends


def serve(config: Config, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. `tell` gets a line for the user. Raises SagelinkError."""
    broker = _broker(config)
    http = parse_address(config.serve.http, "serve.http") if config.serve.http else None
    torch.set_num_threads(config.threads)
    classifier = Classifier(zoo.load(config.server, config.server_model))
    asyncio.run(_serve(config, broker, http, classifier, tell))


def _broker(config: Config) -> Broker:
    listen, embedded = config.serve.listen, config.serve.embedded_broker
    if bool(listen) == bool(embedded):
        raise UsageError("serve: name one of serve.listen (mqtt://host:port) and serve.embedded_broker (host:port)")
    if listen:
        return open_broker(listen, config.mqtt, "serve.listen")
    host, port = parse_address(embedded, "serve.embedded_broker")
    if port == 0:
        raise UsageError(f"serve.embedded_broker {embedded!r}: cameras have to know the port; accepted: 1 to 65535")
    broker = open_broker(f"mqtt://{embedded}", config.mqtt, "serve.embedded_broker")
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (how this process reaches it)
    return dataclasses.replace(broker, host=own, protocol="3.1.1")


async def _serve(
    config: Config, broker: Broker, http: tuple[str, int] | None, classifier: Classifier, tell: Callable[[str], None]
) -> None:
    leave_threads_behind()
    metrics = ServerMetrics(CollectorRegistry())
    limits = BatchLimits(config.serve.max_batch_units, config.serve.max_wait, config.serve.queue)
    async with AsyncExitStack() as stack:
        if config.serve.embedded_broker:
            where = parse_address(config.serve.embedded_broker)
            await stack.enter_async_context(embedded_broker(*where, broker.username, broker.password))
        group = config.serve.group if broker.protocol == "5" else ""
        link = MqttServerLink(broker, Topics(config.mqtt.prefix), group, metrics.connected.set)
        await stack.enter_async_context(link)
        service = Service(link, classifier, limits, metrics, config.serve.workers)
        await asyncio.sleep(_RETAINED_S)
        _refuse_misfits(link, service)
        line = f"serving {classifier.model.name} on {broker.url}"
        if http is not None:
            app = health_app(metrics.registry, lambda: link.trouble)
            host, port = await stack.enter_async_context(serve_http(app, *http))
            line += f", health and metrics on http://{host}:{port}"
        tell(line)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                on_signals(lambda: _end(link, limit))
                await service.run()


def _end(link: MqttServerLink, limit: asyncio.Timeout) -> None:
    """No more frames; those inside may still be answered for a short while."""
    link.close()
    limit.reschedule(asyncio.get_running_loop().time() + _DRAIN_S)


def _refuse_misfits(link: MqttServerLink, service: Service) -> None:
    """Raises UsageError when cameras are there and this model fits none; each of some misfits is answered so."""
    misfits = {address: reason for address, hello in link.cameras.items() if (reason := service.misfit(hello))}
    for address, reason in misfits.items():
        log.warning("event=misfit camera=%s reason=%r", address, reason)
    if misfits and len(misfits) == len(link.cameras):
        address, reason = next(iter(misfits.items()))
        raise UsageError(
            f"the server's model fits none of the {len(misfits)} cameras that are there: {address}: {reason}"
        )
