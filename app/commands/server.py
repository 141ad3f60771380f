"""The commands of the server's side: `serve` classifies what cameras send, `console` shows all cameras of a broker."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sagelink.app.options import (
    ConfigOption,
    PairOption,
    ServerCheckpointOption,
    ServerModelOption,
    SetOption,
    load_settings,
)
from sagelink.pipeline.errors import UsageError


def serve(
    config: ConfigOption = None,
    listen: Annotated[
        Optional[str],
        typer.Option(
            metavar="URL",
            help="Where cameras reach this server: mqtt://host:port[,host:port] of a broker, nats://host:port[,...] of "
            "a cluster, or its own webrtc+http://host:port.",
        ),
    ] = None,
    embedded_broker: Annotated[
        Optional[str],
        typer.Option(metavar="HOST:PORT", help="Run a broker in this process instead, on this host:port."),
    ] = None,
    models: PairOption = None,
    server_model: ServerModelOption = None,
    server_checkpoint: ServerCheckpointOption = None,
    device: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Device of the model: cpu, cuda, cuda:N or mps.")
    ] = None,
    workers: Annotated[
        Optional[str], typer.Option(metavar="N", help="Batches that are classified at the same time.")
    ] = None,
    http: Annotated[
        Optional[str], typer.Option(metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics on this host:port.")
    ] = None,
    console: Annotated[
        Optional[str],
        typer.Option(metavar="HOST:PORT", help="With WebRTC: serve a page of all cameras there."),
    ] = None,
    assignments: SetOption = None,
) -> None:
    """Classify what cameras send over MQTT or WebRTC, until Ctrl-C."""
    given = {
        "serve.listen": listen,
        "serve.embedded_broker": embedded_broker,
        "models": models,
        "server.model": server_model,
        "server.checkpoint": server_checkpoint,
        "server.device": device,
        "serve.workers": workers,
        "serve.http": http,
        "serve.console": console,
    }
    settings = load_settings(config, given, assignments)
    from sagelink.app.server.serve import serve as serve_until_stopped

    serve_until_stopped(settings, typer.echo)


def console(
    broker: Annotated[
        Optional[str],
        typer.Argument(
            metavar="URL", help="The broker, mqtt://host:port[,host:port] or mqtts://... (default: serve.listen)."
        ),
    ] = None,
    config: ConfigOption = None,
    http: Annotated[
        Optional[str], typer.Option(metavar="HOST:PORT", help="Address of the page (default: 127.0.0.1:8700).")
    ] = None,
    store: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Folder for evidence, answers and events, to search them.")
    ] = None,
    models: PairOption = None,
    assignments: SetOption = None,
) -> None:
    """Show all cameras of a broker on a web page, until Ctrl-C.

    It costs no uplink bit: it shows what travels between cameras and servers anyway."""
    settings = load_settings(config, {"console.http": http, "console.store": store, "models": models}, assignments)
    url = broker or settings.serve.listen
    if not url:
        raise UsageError("no broker given; accepted: mqtt://host:port, or serve.listen in the configuration")
    from sagelink.app.server.console import console as serve_console

    serve_console(settings, url, typer.echo)
