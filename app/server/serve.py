"""`sagelink serve`: receives evidence of cameras, classifies it, and replies, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import torch
from prometheus_client import CollectorRegistry

from sagelink.app.server.console import ConsolePageServer
from sagelink.app.server.link import ListenerFactory, ListeningLink, listener_factory
from sagelink.models import loading
from sagelink.models.runtimes.choice import with_runtime
from sagelink.models.runtimes.trials import ServerTrial
from sagelink.monitor.console.change_desk import ChangeDesk
from sagelink.monitor.metrics import ServerMetrics
from sagelink.net.http import parse_address, serve_http
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.descriptors import raise_descriptor_limit
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.tasks import abandon_threads_at_exit, background, on_signals, run_loop
from sagelink.pipeline.urls import is_webrtc
from sagelink.server.batch import BatchLimits
from sagelink.server.classify import Classifier
from sagelink.server.head_store import HeadStore
from sagelink.server.health import health_app
from sagelink.server.service import Service
from sagelink.transport.camera_observer import ObservedLink
from sagelink.transport.link import ServerLink
from sagelink.transport.operator_commands import CommandOutcome
from sagelink.transport.webrtc.address import is_browser

log = logging.getLogger(__name__)

_NO_CHANGES = "cameras that are connected over WebRTC take no changes: only over MQTT do they get commands"
_NO_BROWSER_CHANGES = (
    "a browser takes no changes: it has no budget and no gate, and sends its newest picture whenever the server is free"
)
_DRAIN_S = 1.0  # after a signal, for the frames that are inside


def serve(config: Config, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. `tell` receives one line for the user. Raises SagelinkError."""
    raise_descriptor_limit()
    open_link = listener_factory(config)
    http = parse_address(config.serve.http, "serve.http") if config.serve.http else None
    page = _console_page(config)
    torch.set_num_threads(config.threads)
    model = loading.load(config.server, config.server_model)
    classifier = Classifier(with_runtime(ServerTrial(model, config.threads), config.server))
    run_loop(_serve(config, open_link, http, page, classifier, tell), fast=is_webrtc(config.serve.listen))


async def _serve(
    config: Config,
    open_link: ListenerFactory,
    http: tuple[str, int] | None,
    page: ConsolePageServer | None,
    classifier: Classifier,
    tell: Callable[[str], None],
) -> None:
    abandon_threads_at_exit()
    metrics = ServerMetrics(CollectorRegistry())
    own = config.serve
    limits = BatchLimits(own.max_batch_units, own.max_wait, own.queue, own.waiting)
    heads = HeadStore(classifier.model, own.head_memory, own.heads, metrics.forget_head)
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(open_link(metrics, classifier.model))
        seen: ServerLink = link if page is None else await stack.enter_async_context(_observed(link, page))
        service = Service(seen, classifier, limits, metrics, own.workers, heads)
        _check_cameras(link, service)
        link.serve_fitting(service.misfit)
        line = f"serving {classifier.model.name} on {link.url}"
        if is_webrtc(config.serve.listen) and config.webrtc.max_viewers:
            line += f", page for browsers on {link.url.removeprefix('webrtc+')}/"
        if http is not None:
            app = health_app(metrics.registry, lambda: link.trouble)
            host, port = await stack.enter_async_context(serve_http(app, *http))
            line += f", health and metrics on http://{host}:{port}"
        if page is not None:
            changes = ChangeDesk(_no_change, _change_refusal, [])
            address = await stack.enter_async_context(page.serving(link.url, lambda: link.trouble, changes))
            line += f", console on {address}"
        tell(line)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                on_signals(lambda: _drain(link, limit))
                await service.run()


def _console_page(config: Config) -> ConsolePageServer | None:
    """The console of this server's cameras, if the configuration asks for it. Raises UsageError."""
    if not config.serve.console:
        return None
    if not is_webrtc(config.serve.listen):
        raise UsageError(
            "serve.console shows the cameras of a WebRTC server; accepted for those of a broker: sagelink console URL"
        )
    return ConsolePageServer(config, config.serve.console, "serve.console")


@contextlib.asynccontextmanager
async def _observed(link: ListeningLink, page: ConsolePageServer) -> AsyncIterator[ServerLink]:
    from sagelink.transport.webrtc.wire_cost import WebRtcCostModel

    observed = ObservedLink(link, page.fleet, WebRtcCostModel().message_bits)
    async with page.observing(), background(observed.watch()):
        yield observed


def _change_refusal(camera: str) -> str:
    return _NO_BROWSER_CHANGES if is_browser(camera) else _NO_CHANGES


async def _no_change(camera: str, values: bytes) -> CommandOutcome:
    raise SagelinkError(_change_refusal(camera))


def _drain(link: ListeningLink, limit: asyncio.Timeout) -> None:
    """Takes no more frames; those inside may still be answered for `_DRAIN_S` seconds."""
    link.close()
    with contextlib.suppress(RuntimeError):  # a second signal, when the service has already ended
        limit.reschedule(asyncio.get_running_loop().time() + _DRAIN_S)


def _check_cameras(link: ListeningLink, service: Service) -> None:
    """Raises UsageError when cameras are connected and the model fits none of them. When it fits some, each misfit is
    logged, and its messages are refused."""
    misfits = {
        address: reason for address, camera_info in link.cameras.items() if (reason := service.misfit(camera_info))
    }
    for address, reason in misfits.items():
        log.warning("event=misfit camera=%s reason=%r", address, reason)
    if misfits and len(misfits) == len(link.cameras):
        address, reason = next(iter(misfits.items()))
        raise UsageError(f"the server's model fits none of the {len(misfits)} connected cameras: {address}: {reason}")
