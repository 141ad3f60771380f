"""Describes in words which values a configuration field accepts: for error messages and for docs/configuration.md.

A word between backticks is written exactly so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

_KINDS: dict[object, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true`, `false`",
    Path: "path",
    SecretStr: "text, never printed",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True, slots=True)
class Accepts:
    """Metadata of a field's type: what it accepts, and an example as a user writes it in YAML."""

    words: str
    example: str


def accepted(field: FieldInfo) -> str:
    """What the field accepts, such as `whole number, at least 1`."""
    kind, metadata = _unwrap(field)
    for hint in metadata:
        if isinstance(hint, Accepts):
            return hint.words
    if get_origin(kind) is Literal:
        return _listed(kind)
    if get_origin(kind) in (list, tuple) and get_origin(get_args(kind)[0]) is Literal:
        return f"list of {_listed(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a section with the keys {', '.join(f'`{key}`' for key in kind.model_fields)}"
    words = _KINDS.get(kind, "list" if get_origin(kind) in (list, tuple) else "mapping")
    return ", ".join([words, *_bounds(metadata)])


def choices(field: FieldInfo) -> list[str]:
    """The words that the field accepts; empty where it accepts others too."""
    kind, _ = _unwrap(field)
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _listed(kind: object) -> str:
    return ", ".join(f"`{choice}`" for choice in get_args(kind))


def example(field: FieldInfo) -> str | None:
    """A value that the field accepts, as YAML; None where the words are enough."""
    return next((hint.example for hint in _unwrap(field)[1] if isinstance(hint, Accepts)), None)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that holds a section, or a list of sections; None for a value."""
    kind, _ = _unwrap(field)
    kinds = (kind, *get_args(kind))
    return next((inner for inner in kinds if isinstance(inner, type) and issubclass(inner, BaseModel)), None)


def is_secret(field: FieldInfo) -> bool:
    """Whether a value of the field must never be printed."""
    return _unwrap(field)[0] is SecretStr


def _unwrap(field: FieldInfo) -> tuple[Any, list[Any]]:
    """The type of a field without `None` and `Annotated`, and all metadata."""
    kind, metadata = field.annotation, [*field.metadata]
    while True:
        arguments = get_args(kind)
        if get_origin(kind) is Annotated:
            kind, metadata = arguments[0], [*metadata, *arguments[1:]]
        elif get_origin(kind) in (Union, UnionType) and NoneType in arguments and len(arguments) == 2:
            kind = next(inner for inner in arguments if inner is not NoneType)
        else:
            return kind, metadata


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for hint in metadata:
        for part in getattr(hint, "metadata", (hint,)):  # the bounds of a nested `Field`
            for name, words in _BOUNDS.items():
                bound = getattr(part, name, None)
                if bound is not None:
                    yield f"{words} {bound:g}"
