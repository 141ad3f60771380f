"""Generates docs/configuration.md from the configuration schema.

Usage: `python -m sagelink.pipeline.config_reference > docs/configuration.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from sagelink.pipeline.config import MODEL_PAIRS, BudgetConfig, CameraConfig, Config
from sagelink.pipeline.quantities import format_rate, parse_duration, parse_frame_size, parse_rate, parse_size

_INTRO = """# Configuration

Generated from `pipeline/config.py` by `python -m sagelink.pipeline.config_reference > docs/configuration.md`. Do not
edit.

`sagelink run --config FILE` reads a YAML file with these keys. Command-line options override the file;
`--set section.key=value` overrides both. Every key is optional; unknown keys are errors. Relative paths are relative to
the working directory.

| kind | examples | unit of a plain number |
|---|---|---|
| rate | `64kbit/s`, `64kbps`, `8kB/s`; prefixes `k`, `M`, `G` of 1000 | bit/s |
| size | `2kB`, `1.5MB`, `64KiB` | bytes |
| duration | `500us`, `500ms`, `1s`, `2min`, `1h`, `1d` | seconds |
"""
_KINDS: dict[object, str] = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Path: "path"}
_KINDS |= {dict[float, float]: "mapping of numbers", BudgetConfig: "keys of `budget`", SecretStr: "text, never printed"}
_QUANTITIES: dict[Callable[[object], object], str] = {
    parse_rate: "rate or `unlimited`",
    parse_size: "size",
    parse_duration: "duration",
    parse_frame_size: "width x height",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def reference() -> str:
    """The page as Markdown: a table of the top-level keys, then one table per section."""
    sections = {name: f.default for name, f in Config.model_fields.items() if isinstance(f.default, BaseModel)}
    top = {name: field for name, field in Config.model_fields.items() if name not in {*sections, "cameras"}}
    parts = [f"{_INTRO}\n## Top level\n\n{_table(top)}"]
    for name, section in sections.items():
        parts += [f"\n## `{name}`\n", f"{type(section).__doc__}\n", _table(type(section).model_fields)]
        if name == "capture":
            own = {key: CameraConfig.model_fields[key] for key in ("name", "source", "weight", "min_share", "budget")}
            parts += ["\n## `cameras`\n", f"A list. {CameraConfig.__doc__}\n", _table(own)]
    parts += ["\n## Pairs of models\n\n| `models` | edge | server |\n|---|---|---|"]
    for name, pair in MODEL_PAIRS.items():
        parts.append(f"| `{name}` | `{pair.edge}` | `{pair.server}` |")
    return "\n".join([*parts, ""])


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = ["| key | accepted | default | meaning |\n|---|---|---|---|"]
    for key, field in fields.items():
        default = "half of the CPU cores" if key == "threads" else _default(field)
        rows.append(f"| `{key}` | {_accepted(field)} | {default} | {field.description} |")
    return "\n".join(rows)


def _accepted(field: FieldInfo) -> str:
    for hint in field.metadata:
        if getattr(hint, "func", None) in _QUANTITIES:
            return _QUANTITIES[hint.func]
    choices = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in choices)
    union = get_origin(field.annotation) in (Union, UnionType)
    kinds = [kind for kind in choices if kind is not NoneType] if union else [field.annotation]
    for hint in getattr(kinds[0], "__metadata__", ()):  # an optional quantity
        if getattr(hint, "func", None) in _QUANTITIES:
            return _QUANTITIES[hint.func]
    if get_origin(kinds[0]) is tuple:
        return "list"
    bounds = ((words, getattr(hint, at, None)) for hint in field.metadata for at, words in _BOUNDS.items())
    return ", ".join([_KINDS[kinds[0]], *(f"{words} {bound:g}" for words, bound in bounds if bound is not None)])


def _default(field: FieldInfo) -> str:
    """The default value as a user would write it."""
    value, accepted = field.default, _accepted(field)
    if accepted == _QUANTITIES[parse_rate]:
        return f"`{format_rate(value).replace(' ', '')}`"
    if accepted == _QUANTITIES[parse_size]:
        return f"`{value / 1000:g}kB`"
    if isinstance(value, float):
        return f"`{value:g}{'s' if accepted == _QUANTITIES[parse_duration] else ''}`"
    return {
        "None": "none",
        "()": "none",
        "PydanticUndefined": "required",
        "": "empty",
        "True": "`true`",
        "False": "`false`",
    }.get(str(value), f"`{value}`")


if __name__ == "__main__":
    sys.stdout.write(reference())
