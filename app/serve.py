"""`sagelink serve`: the server as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

import torch
from prometheus_client import CollectorRegistry

from sagelink.app.server_link import ListenerFactory, Listening, listener_factory
from sagelink.models import loading
from sagelink.monitor.metrics import ServerMetrics
from sagelink.net.http import parse_address, serve_http
from sagelink.pipeline.config import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.tasks import abandon_threads_at_exit, on_signals, run_loop
from sagelink.pipeline.urls import is_webrtc
from sagelink.server.batch import BatchLimits
from sagelink.server.classify import Classifier
from sagelink.server.health import health_app
from sagelink.server.memory import ReferenceStore
from sagelink.server.service import Service

log = logging.getLogger(__name__)

_DRAIN_S = 1.0  # for the frames inside when it ends


def serve(config: Config, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. `tell` gets a line for the user. Raises SagelinkError."""
    opens = listener_factory(config)
    http = parse_address(config.serve.http, "serve.http") if config.serve.http else None
    torch.set_num_threads(config.threads)
    classifier = Classifier(loading.load(config.server, config.server_model))
    run_loop(_serve(config, opens, http, classifier, tell), fast=is_webrtc(config.serve.listen))


async def _serve(
    config: Config,
    opens: ListenerFactory,
    http: tuple[str, int] | None,
    classifier: Classifier,
    tell: Callable[[str], None],
) -> None:
    abandon_threads_at_exit()
    metrics = ServerMetrics(CollectorRegistry())
    limits = BatchLimits(config.serve.max_batch_units, config.serve.max_wait, config.serve.queue)
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(opens(metrics, classifier.model))
        service = Service(
            link, classifier, limits, metrics, config.serve.workers, ReferenceStore(config.serve.memory or 0)
        )
        _refuse_misfits(link, service)
        line = f"serving {classifier.model.name} on {link.url}"
        if is_webrtc(config.serve.listen) and config.webrtc.max_viewers:
            line += f", page for browsers on {link.url.removeprefix('webrtc+')}/"
        if http is not None:
            app = health_app(metrics.registry, lambda: link.trouble)
            host, port = await stack.enter_async_context(serve_http(app, *http))
            line += f", health and metrics on http://{host}:{port}"
        tell(line)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                on_signals(lambda: _end(link, limit))
                await service.run()


def _end(link: Listening, limit: asyncio.Timeout) -> None:
    """No more frames; those inside may still be answered for a short while."""
    link.close()
    with contextlib.suppress(RuntimeError):  # a further signal, when it is ending already
        limit.reschedule(asyncio.get_running_loop().time() + _DRAIN_S)


def _refuse_misfits(link: Listening, service: Service) -> None:
    """Raises UsageError when cameras are there and this model fits none; each of some misfits is answered so."""
    misfits = {
        address: reason for address, camera_info in link.cameras.items() if (reason := service.misfit(camera_info))
    }
    for address, reason in misfits.items():
        log.warning("event=misfit camera=%s reason=%r", address, reason)
    if misfits and len(misfits) == len(link.cameras):
        address, reason = next(iter(misfits.items()))
        raise UsageError(
            f"the server's model fits none of the {len(misfits)} cameras that are there: {address}: {reason}"
        )
