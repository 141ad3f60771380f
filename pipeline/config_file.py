"""Reads a YAML file and overrides into a Config; errors name the key and the accepted values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sagelink.pipeline.config import Config
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.documents import DocumentError, parse_yaml, read_yaml
from sagelink.pipeline.errors import UsageError, suggest

Overrides = Mapping[str, object]  # value by "section.key" or "key"

RENAMED = {  # new name of each renamed key of version 0.1
    "encode.closer": "encode.zoom",
    "video.averaging": "video.average_edge",
    "video.closer": "video.zoom",
    "video.holding": "video.hold_answers",
    "video.value": "video.value_gate",
}


_MAX_ERRORS = 20
_MAX_QUOTED = 100  # characters of a wrong value or key


def load_config(path: Path | None, overrides: Overrides | None = None) -> Config:
    """Defaults, overridden by the file, overridden by `overrides`. Raises UsageError."""
    return build_config({} if path is None else read_tree(path), overrides, f"{path}: " if path else "")


def build_config(tree: dict[str, Any], overrides: Overrides | None = None, where: str = "") -> Config:
    """The configuration of sections as `read_tree` returns them. Raises UsageError; each line begins with `where`."""
    for dotted, value in (overrides or {}).items():
        _place(tree, dotted, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as errors:
        lines = [f"{where}{_explain(error)}" for error in errors.errors()[:_MAX_ERRORS]]
        if errors.error_count() > _MAX_ERRORS:
            lines.append(f"{where}and {errors.error_count() - _MAX_ERRORS} more errors")
        raise UsageError("\n".join(lines)) from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """Parses `section.key=value` from the command line; values are YAML. Raises UsageError."""
    values: dict[str, object] = {}
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals or not dotted:
            raise UsageError(
                f"--set {redact(assignment)!r}: accepted: section.key=value, such as --set gate.policy=always"
            )
        try:
            values[dotted.strip()] = parse_yaml(text)
        except DocumentError:
            values[dotted.strip()] = text
    return values


def dump_config(config: Config) -> str:
    """The whole configuration as YAML for `load_config`; credentials in URLs are removed."""
    return yaml.safe_dump(_redacted(config.model_dump(mode="json")), sort_keys=False)


def _redacted(value: Any) -> Any:
    match value:
        case dict():
            return {key: _redacted(inner) for key, inner in value.items()}
        case list():
            return [_redacted(inner) for inner in value]
        case str():
            return redact(value)
    return value


def read_tree(path: Path) -> dict[str, Any]:
    """The sections of a configuration file, not validated. Raises UsageError."""
    try:
        tree = read_yaml(path)
    except OSError as error:
        raise UsageError(f"configuration {str(path)!r}: {error.strerror}") from None
    except DocumentError as error:
        raise UsageError(f"configuration {str(path)!r} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"configuration {str(path)!r} holds a {type(tree).__name__}; accepted: a mapping of sections")
    return tree


def _place(tree: dict[str, Any], dotted: str, value: object) -> None:
    *path, key = dotted.split(".")
    for step in path:
        inner = tree[step] = {} if tree.get(step) is None else tree[step]
        if not isinstance(inner, dict):
            raise UsageError(f"{dotted}: {step} is a value, not a section")
        tree = inner
    tree[key] = value


def _explain(error: Any) -> str:
    location = [_quoted(step).strip("'") for step in error["loc"]]
    dotted = ".".join(location)
    if error["type"] == "extra_forbidden":
        if dotted in RENAMED:
            return f"{dotted} is named {RENAMED[dotted]} since version 0.2"
        section = _section(location[:-1])
        accepted = sorted(section.model_fields) if section else []
        return f"{dotted}: unknown key{suggest(location[-1], accepted)}; accepted: {', '.join(accepted)}"
    message = error["msg"].removeprefix("Value error, ")
    if "; got" not in message:
        message += f"; got {_quoted(error['input'])}"
    return redact(f"{dotted}: {message}" if dotted else message)


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def _section(location: list[str]) -> type[BaseModel] | None:
    section: type[BaseModel] = Config
    for step in location:
        if step.isdecimal():  # an index in a list: the section stays the same
            continue
        field = section.model_fields.get(step)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            return None
        section = inner
    return section
