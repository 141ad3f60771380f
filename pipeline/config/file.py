"""Reads a YAML file and overrides into a Config; errors name the key and the accepted values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sagelink.pipeline.config.errors import explain
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_yaml, read_yaml

Overrides = Mapping[str, object]  # value by "section.key" or "key"


def load_config(path: Path | None, overrides: Overrides | None = None, numbers_without_unit: bool = False) -> Config:
    """Defaults, overridden by the file, overridden by `overrides`. Raises UsageError.

    A text in the file that begins with ./ is a path, relative to the folder of the file.
    `numbers_without_unit`: the file may hold rates, sizes and durations as numbers in bit/s, bytes and seconds.
    """
    tree = {} if path is None else _beside(path.parent, read_tree(path, numbers_without_unit))
    return build_config(tree, overrides, f"{path}: " if path else "")


def build_config(tree: dict[str, Any], overrides: Overrides | None = None, where: str = "") -> Config:
    """The configuration of sections as `read_tree` returns them. Raises UsageError; each line begins with `where`."""
    for dotted, value in (overrides or {}).items():
        place(tree, dotted, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as errors:
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
            values[dotted.strip()] = parse_yaml(text, numbers_as_text=True)
        except DocumentError:
            values[dotted.strip()] = text
    return values


def dump_config(config: Config) -> str:
    """The whole configuration as YAML for `load_config`; credentials in URLs are removed."""
    return yaml.safe_dump(_redacted(config.model_dump(mode="json")), sort_keys=False)


def given_settings(config: Config) -> dict[str, Any]:
    """The settings that were given, as plain values, without defaults; credentials in URLs are removed."""
    settings: dict[str, Any] = _redacted(config.model_dump(mode="json", exclude_unset=True))
    return settings


def _beside(folder: Path, value: Any) -> Any:
    """The tree with paths that begin with ./ made relative to the folder."""
    match value:
        case dict():
            return {key: _beside(folder, inner) for key, inner in value.items()}
        case list():
            return [_beside(folder, inner) for inner in value]
        case str() if value.startswith("./"):
            return str(folder / value)
    return value


def _redacted(value: Any) -> Any:
    match value:
        case dict():
            return {key: _redacted(inner) for key, inner in value.items()}
        case list():
            return [_redacted(inner) for inner in value]
        case str():
            return redact(value)
    return value


def read_tree(path: Path, numbers_without_unit: bool = False) -> dict[str, Any]:
    """The sections of a configuration file, not validated; arguments as of `load_config`. Raises UsageError."""
    try:
        tree = read_yaml(path, numbers_as_text=not numbers_without_unit)
    except OSError as error:
        raise UsageError(f"configuration {str(path)!r}: {error.strerror}") from None
    except DocumentError as error:
        raise UsageError(f"configuration {str(path)!r} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        held = "a list" if isinstance(tree, list) else f"only {str(tree)[:40]!r}"
        raise UsageError(
            f"configuration {str(path)!r} holds {held}; accepted: sections, such as budget: {{uplink: 64kbit/s}}"
        )
    return tree


def place(tree: dict[str, Any], dotted: str, value: object) -> None:
    """Puts a value at `section.key` of a tree. Raises UsageError."""
    *path, key = dotted.split(".")
    for step in path:
        inner = tree[step] = {} if tree.get(step) is None else tree[step]
        if not isinstance(inner, dict):
            raise UsageError(f"{dotted}: {step} is a value, not a section")
        tree = inner
    tree[key] = value
