"""`sagelink head`: sends a head to a camera at another place over MQTT, takes it back, or shows which one holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.options import ConfigOption, SetOption, load_settings, split_head
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.text import safe_text

if TYPE_CHECKING:
    from sagelink.transport.operator_commands import Action

head_app = typer.Typer(help="Send a head to a camera at another place.", no_args_is_help=True)

ToOption = Annotated[str, typer.Option("--to", metavar="NODE/CAMERA", help="The camera, as in its MQTT topics.")]
NameOption = Annotated[
    str, typer.Option("--head", metavar="NAME", help="Name of a further head (default: the first head).")
]
BrokerOption = Annotated[
    Optional[str], typer.Option(metavar="URL", help="The broker: mqtt://host:port (default: serve.listen).")
]


@head_app.command()
def push(
    file: Annotated[
        str,
        typer.Argument(
            help="Head file of `sagelink teach`. NAME: it replaces this further head; else, the first.",
            metavar="[NAME=]FILE",
        ),
    ],
    to: ToOption,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Send a head to a camera. Its run loads it from the next frame on, and keeps the one before it."""
    from sagelink.models.heads.head import read_head
    from sagelink.transport.head_messages import MAX_HEAD_BYTES
    from sagelink.transport.operator_commands import Action

    name, path = split_head(file)
    head = read_head(Path(path))
    content = head.file_content()
    if len(content) > MAX_HEAD_BYTES:
        raise UsageError(f"head file {path!r} has {len(content)} bytes; accepted for a push: up to {MAX_HEAD_BYTES}")
    _command(to, broker, config, assignments, Action.PUSH, name, content, head.taught.fingerprint)


@head_app.command()
def restore(
    to: ToOption,
    head: NameOption = "",
    broker: BrokerOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Give a camera the head back that it had before the last push."""
    from sagelink.transport.operator_commands import Action

    _command(to, broker, config, assignments, Action.RESTORE, head)


@head_app.command()
def show(
    to: ToOption,
    head: NameOption = "",
    broker: BrokerOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Show which head a camera has."""
    from sagelink.transport.operator_commands import Action

    _command(to, broker, config, assignments, Action.SHOW, head)


def _command(
    to: str,
    broker: str | None,
    config: Path | None,
    assignments: list[str] | None,
    action: Action,
    head: str,
    content: bytes = b"",
    fingerprint: bytes = b"",
) -> None:
    from sagelink.transport.mqtt.address import message_auth, open_broker
    from sagelink.transport.mqtt.head_operator import command_camera
    from sagelink.transport.mqtt.topics import Topics

    settings = load_settings(config, {}, assignments)
    url = broker or settings.serve.listen
    if not url:
        raise UsageError("no broker given; accepted: --broker mqtt://host:port, or serve.listen in the configuration")
    if to.count("/") != 1 or not all(to.split("/")) or set("+#$") & set(to):
        raise UsageError(f"--to {to!r}; accepted: NODE/CAMERA, such as north/gate")
    auth = message_auth(settings.mqtt)
    if auth is None:
        raise UsageError(
            "mqtt.mac_key_file is not set: a camera takes heads only from who has its key; accepted: the key file of "
            "the camera, --set mqtt.mac_key_file=FILE"
        )
    opened = open_broker(url, settings.mqtt, "--broker")

    def show_progress(done: int, total: int) -> None:
        if total > 1 and (done == total or done % 50 == 0):
            typer.echo(f"sent {done} of {total} parts", err=True)

    topics = Topics(settings.mqtt.prefix)
    answer = asyncio.run(command_camera(opened, topics, to, auth, action, content, fingerprint, head, show_progress))
    typer.echo(safe_text(f"{to}: {answer}"))
