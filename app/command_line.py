"""Extends typer: an option whose value may be left out, `sagelink help`, `--version`, and numbers in our words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from sagelink.pipeline.errors import UsageError, suggest

DASHBOARD = "127.0.0.1:8600"
# HOST:PORT; not a source such as synthetic:4, webrtc:0.0.0.0:8630 or rtsp://host:554.
_ADDRESS = re.compile(r"(?!(?:synthetic|webrtc):)(\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+):\d+")


class CommandWithDashboard(TyperCommand):
    """A command whose option `--dashboard` takes the next word only if that is an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_address(args))


def _with_address(words: list[str]) -> list[str]:
    """`--dashboard HOST:PORT` becomes `--dashboard=HOST:PORT`; a lone `--dashboard` gets the usual address."""
    rest = list(words)
    completed: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*completed, word, *rest]
        if word == "--dashboard":
            address = rest.pop(0) if rest and _ADDRESS.fullmatch(rest[0]) else DASHBOARD
            word = f"{word}={address}"
        completed.append(word)
    return completed


def show_version(wanted: bool) -> None:
    """Callback of `--version`."""
    if wanted:
        import sagelink

        typer.echo(f"sagelink {sagelink.__version__}")
        raise typer.Exit


def show_help(
    ctx: typer.Context,
    words: Annotated[Optional[list[str]], typer.Argument(metavar="COMMAND", help="Name of a command.")] = None,
) -> None:
    """Show the options of a command, like `sagelink COMMAND --help`."""
    assert ctx.parent is not None
    context: Any = ctx.parent
    for word in words or []:
        known = getattr(context.command, "commands", {})
        if word not in known:
            accepted = f"; accepted: {', '.join(known)}" if known else ""
            raise UsageError(f"unknown command {word!r}{suggest(word, [*known])}{accepted}")
        context = type(context)(known[word], info_name=word, parent=context)
    typer.echo(context.get_help())


def whole_number(minimum: int) -> Callable[[str], int]:
    """A parser for an option: whole numbers from `minimum` on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise typer.BadParameter(f"accepted: whole number, at least {minimum}; got {text!r}")
        return number

    return parse


def number_within(minimum: float, maximum: float) -> Callable[[str], float]:
    """A parser for an option: numbers from `minimum` to `maximum`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not minimum <= value <= maximum:
            raise typer.BadParameter(f"accepted: number, {minimum:g} to {maximum:g}; got {text!r}")
        return value

    return parse
