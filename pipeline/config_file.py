"""Reads a YAML file and overrides into a Config; errors name the key and the accepted values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sagelink.pipeline.config import Config
from sagelink.pipeline.config_errors import explain
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.yaml_text import TextLoader

Overrides = Mapping[str, object]  # value by "section.key" or "key"


def load_config(path: Path | None, overrides: Overrides | None = None, numbers_without_unit: bool = False) -> Config:
    """Defaults, overridden by the file, overridden by `overrides`. Raises UsageError.

    `numbers_without_unit`: the file may hold rates, sizes and durations as numbers in bit/s, bytes and seconds.
    """
    tree = {} if path is None else _read(path, yaml.SafeLoader if numbers_without_unit else TextLoader)
    for dotted, value in (overrides or {}).items():
        _place(tree, dotted, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as errors:
        where = f"{path}: " if path else ""
        raise UsageError("\n".join(f"{where}{line}" for line in explain(errors, Config))) from None


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
            values[dotted.strip()] = yaml.load(text, TextLoader)  # noqa: S506 (a SafeLoader)
        except yaml.YAMLError:
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


def _read(path: Path, loader: type[yaml.SafeLoader]) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise UsageError(f"configuration {str(path)!r}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:  # its message quotes the line, which may hold a password
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"configuration {str(path)!r} is not YAML: {where}{error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration {str(path)!r} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        held = "a list" if isinstance(tree, list) else f"only {str(tree)[:40]!r}"
        raise UsageError(
            f"configuration {str(path)!r} holds {held}; accepted: sections, such as budget: {{uplink: 64kbit/s}}"
        )
    return tree


def _place(tree: dict[str, Any], dotted: str, value: object) -> None:
    *path, key = dotted.split(".")
    for step in path:
        inner = tree[step] = {} if tree.get(step) is None else tree[step]
        if not isinstance(inner, dict):
            raise UsageError(f"{dotted}: {step} is a value, not a section")
        tree = inner
    tree[key] = value
