"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar, get_type_hints

import typer

from sagelink.pipeline.errors import UsageError, suggest

if TYPE_CHECKING:
    from sagelink.pipeline.config.schema import Config

Name = TypeVar("Name", bound=str)
_HEAD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

ConfigOption = Annotated[
    Optional[Path], typer.Option("--config", "-c", metavar="FILE", help="YAML file; options override it.")
]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any configuration key, such as gate.policy=always; may be repeated."
    ),
]
PairOption = Annotated[
    Optional[str],
    typer.Option("--models", metavar="NAME", help="Pair of models: deit (ImageNet), or demo (16 drawn classes)."),
]
ServerModelOption = Annotated[
    Optional[str], typer.Option(help="Server model: a timm VisionTransformer.", metavar="NAME")
]
ServerCheckpointOption = Annotated[
    Optional[str], typer.Option(help="Server weights: a safetensors file.", metavar="FILE")
]


HeadOption = Annotated[
    Optional[list[str]],
    typer.Option(
        help="Head file of `sagelink teach`: your own classes. The first decides what is sent; more may follow.",
        metavar="[NAME=]FILE",
    ),
]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of a command that runs both models. A command takes them through `with_model_options`."""

    config: ConfigOption = None
    models: PairOption = None
    edge_model: Annotated[Optional[str], typer.Option(help="Edge model: a timm VisionTransformer.", metavar="NAME")] = (
        None
    )
    edge_checkpoint: Annotated[
        Optional[str], typer.Option(help="Edge weights: a safetensors file.", metavar="FILE")
    ] = None
    server_model: ServerModelOption = None
    server_checkpoint: ServerCheckpointOption = None
    head: HeadOption = None
    assignments: SetOption = None

    def load(self, overrides: Mapping[str, object] | None = None) -> Config:
        """The configuration: the file, these options, and the command's own.

        `overrides`: values by configuration key; None means that the option was not given. Raises UsageError.
        """
        from sagelink.app.edge.checks import check_names

        models = {
            "models": self.models,
            "edge.model": self.edge_model,
            "edge.checkpoint": self.edge_checkpoint,
            "server.model": self.server_model,
            "server.checkpoint": self.server_checkpoint,
            **head_settings(self.head or []),
        }
        settings = load_settings(self.config, {**models, **(overrides or {})}, self.assignments)
        check_names(settings)
        return settings


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command with a parameter `options: ModelOptions`: puts the options in its place, and `--set` last."""
    hints = get_type_hints(ModelOptions, include_extras=True)
    *shared, assignments = (
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in hints.items()
    )
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.annotation is ModelOptions:
            parameters += shared
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters.append(assignments)

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        options = ModelOptions(**{name: given.pop(name) for name in hints})
        command(**given, options=options)

    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def load_settings(file: Path | None, overrides: Mapping[str, object], assignments: Sequence[str] | None) -> Config:
    """The configuration of a file, of options by key (None: not given) and of `--set`. Raises UsageError."""
    from sagelink.pipeline.config.file import load_config, parse_assignments

    given = {key: value for key, value in overrides.items() if value is not None}
    return load_config(file, given | parse_assignments(list(assignments or [])))


def split_head(option: str) -> tuple[str, str]:
    """Name and file of `[NAME=]FILE`; the name is empty where there is none. Raises UsageError."""
    name, equals, file = option.partition("=")
    if not equals or Path(option).is_file():
        name, file = "", option
    elif not _HEAD_NAME.fullmatch(name):
        raise UsageError(
            f"head {option!r} is not a file, and {name!r} is not a name; accepted: FILE, or NAME=FILE with a NAME of 1 "
            "to 64 letters, digits, _ and -"
        )
    if not file:
        raise UsageError(f"head {option!r} names no file; accepted: FILE or NAME=FILE")
    return name, file


def head_settings(options: Sequence[str]) -> dict[str, object]:
    """`head` and `heads` of the configuration. Without NAME, the name is that of the file. Raises UsageError."""
    heads: dict[str, str] = {}
    for option in options:
        name, file = split_head(option)
        name = name or re.sub(r"[^A-Za-z0-9_-]", "-", Path(file).stem)[:64]
        if name in heads:
            raise UsageError(
                f"--head {option!r}: two heads have the name {name!r}; accepted: NAME=FILE, each name once"
            )
        heads[name] = file
    if not heads:
        return {}
    (_, first), *further = heads.items()
    return {"head": first} | ({"heads": dict(further)} if further else {})


def check_inputs(sources: Iterable[str], labels: Path | None = None) -> None:
    """Raises UsageError for a source or a labels file that does not exist: before a model is loaded."""
    from sagelink.stages.sources.open import check_source

    for source in sources:
        check_source(source)
    if labels is not None and not labels.is_file():
        raise UsageError(f"labels {str(labels)!r} does not exist; accepted: a CSV file with the columns file and label")


def check_belongs(option: str, value: str | None, other: str, present: bool) -> None:
    """Raises UsageError for an option that has no effect, because `other` is not `present`."""
    if value is not None and not present:
        raise UsageError(f"{option} {value!r} goes with {other}, which this command line does not have")


def parse_names(option: str, text: str, accepted: Sequence[Name]) -> list[Name]:
    """Names with commas, in the order of `accepted`. Raises UsageError for an unknown name."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in accepted:
            raise UsageError(f"{option}: unknown {name!r}{suggest(name, accepted)}; accepted: {', '.join(accepted)}")
    if not names:
        raise UsageError(f"{option} is empty; accepted: {', '.join(accepted)}")
    return [name for name in accepted if name in names]


def parse_integers(option: str, text: str, maximum: int) -> list[int]:
    """Whole numbers with commas, from 1 to `maximum`, ascending, each once. Raises UsageError."""
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UsageError(f"{option} {text!r}; accepted: whole numbers with commas, such as 16,32,48") from None
    if numbers[0] < 1 or numbers[-1] > maximum:
        raise UsageError(f"{option} {text!r}; accepted: 1 to {maximum}")
    return numbers


def parse_rows(text: str) -> slice:
    """`1::2` is every second row from row 1 on. Raises UsageError."""
    start, _, step = text.partition("::")
    if not (start.isdecimal() and step.isdecimal() and int(step)):
        raise UsageError(f"--rows {text!r}; accepted: START::STEP, such as 0::2 or 1::2")
    return slice(int(start), None, int(step))
