"""Options that several commands share, and what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from sagelink.pipeline.errors import UsageError, suggest

if TYPE_CHECKING:
    from sagelink.pipeline.config import Config

N = TypeVar("N", bound=str)

# Options that name models, by the configuration's key.
MODEL_OPTIONS = {
    "models": "models",
    "edge_model": "edge.model",
    "edge_checkpoint": "edge.checkpoint",
    "server_model": "server.model",
    "server_checkpoint": "server.checkpoint",
}

ConfigFile = Annotated[Optional[Path], typer.Option("--config", "-c", help="YAML file; options override it.")]
Assignments = Annotated[
    Optional[list[str]], typer.Option("--set", help="Any key of the configuration: section.key=value.")
]
Pair = Annotated[Optional[str], typer.Option("--models", help="Pair of models: deit or demo.")]
EdgeModel = Annotated[Optional[str], typer.Option(help="timm VisionTransformer that scores.")]
EdgeCheckpoint = Annotated[Optional[str], typer.Option(help="Its weights, a safetensors file.")]
ServerModel = Annotated[Optional[str], typer.Option(help="timm VisionTransformer that classifies.")]
ServerCheckpoint = Annotated[Optional[str], typer.Option(help="Its weights, a safetensors file.")]


def command_settings(given: dict[str, Any], own: dict[str, str]) -> Config:
    """The configuration of a command's arguments; `own`: keys of its options beside the models. Raises UsageError."""
    from sagelink.app.run import check_names
    from sagelink.pipeline.config_file import load_config, parse_assignments

    keys = MODEL_OPTIONS | own
    overrides = {keys[name]: value for name, value in given.items() if name in keys and value is not None}
    settings = load_config(given["config"], overrides | parse_assignments(given["assignments"] or []))
    check_names(settings)
    return settings


def listed(option: str, text: str, accepted: Sequence[N]) -> list[N]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in accepted:
            raise UsageError(f"{option}: unknown {name!r}{suggest(name, accepted)}; accepted: {', '.join(accepted)}")
    if not names:
        raise UsageError(f"{option} is empty; accepted: {', '.join(accepted)}")
    return [name for name in accepted if name in names]


def numbers(option: str, text: str, most: int) -> list[int]:
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UsageError(f"{option} {text!r}; accepted: whole numbers with commas, such as 16,32,48") from None
    if numbers[0] < 1 or numbers[-1] > most:
        raise UsageError(f"{option} {text!r}; accepted: 1 to {most}")
    return numbers


def rows_of(text: str) -> slice:
    start, _, step = text.partition("::")
    if not (start.isdecimal() and step.isdecimal() and int(step)):
        raise UsageError(f"--rows {text!r}; accepted: START::STEP, such as 0::2 or 1::2")
    return slice(int(start), None, int(step))
