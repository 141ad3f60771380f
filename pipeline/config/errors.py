"""Turns the errors of a schema into lines for the user: the key, what is accepted with an example, the value.

The words of pydantic never reach the user, except those that a validator of ours has raised.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sagelink.pipeline.accepted import accepted, choices, example, is_secret, section_of
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import suggest

_MAX_LINES = 20
_MAX_VALUE = 100  # characters
_OUR_PREFIX = "Value error, "

RENAMED = {  # new name of each renamed key of version 0.1
    "encode.closer": "encode.zoom",
    "video.averaging": "video.average_edge",
    "video.closer": "video.zoom",
    "video.holding": "video.hold_answers",
    "video.value": "video.value_gate",
}
REPLACED = {  # what does the job of a key that is gone
    "video.saving": "budget.pace: adaptive",
}


def explain(errors: ValidationError, root: type[BaseModel]) -> list[str]:
    """At most one line for each key with an error. `root`: the schema."""
    lines: dict[tuple[object, ...], str] = {}
    for error in errors.errors(include_url=False):
        known = _walk(root, error["loc"])
        lines.setdefault(error["loc"][: known.depth], _line(error, known))
    shown = [*lines.values()][:_MAX_LINES]
    return shown if len(lines) <= _MAX_LINES else [*shown, f"and {len(lines) - _MAX_LINES} more errors"]


class _Place:
    """Where an error is: the last section and field of the schema on the way to it."""

    def __init__(self, section: type[BaseModel], field: FieldInfo | None, depth: int) -> None:
        self.section, self.field, self.depth = section, field, depth


def _walk(root: type[BaseModel], location: tuple[int | str, ...]) -> _Place:
    section, field, depth = root, None, 0
    for number, step in enumerate(location, 1):
        if isinstance(step, int) and field is not None:  # an item of a list of sections
            field, depth = None, number
            continue
        depth = number
        field = section.model_fields.get(str(step))
        inner = None if field is None else section_of(field)
        if inner is None:
            break
        section = inner
    return _Place(section, field, depth)


def _line(error: Any, place: _Place) -> str:
    steps = error["loc"][:-2] if error["loc"][-1:] == ("[key]",) else error["loc"]  # a key of a mapping has no place
    dotted = ".".join(map(str, steps))
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        if dotted in RENAMED:
            return f"{dotted} is named {RENAMED[dotted]} since version 0.2"
        if dotted in REPLACED:
            return f"{dotted} was replaced by {REPLACED[dotted]}"
        keys = sorted(place.section.model_fields)
        return f"{dotted}: unknown key{suggest(str(error['loc'][-1]), keys)}; accepted: {', '.join(keys)}"
    if kind == "value_error":
        message = message.removeprefix(_OUR_PREFIX)
        if not dotted:
            return redact(message)
    else:
        message = f"missing; {_accepted(place)}" if kind == "missing" else _accepted(place)
        if kind == "literal_error" and isinstance(error["input"], str) and place.field is not None:
            message += suggest(error["input"], choices(place.field))
    whole_section = place.field is None and isinstance(error["input"], dict)
    hidden = kind == "missing" or whole_section or (place.field is not None and is_secret(place.field))
    if "; got" not in message and not hidden:
        value = repr(error["input"])
        message += f"; got {value if len(value) <= _MAX_VALUE else value[:_MAX_VALUE] + '...'}"
    return redact(f"{dotted}: {message}" if dotted else message)


def _accepted(place: _Place) -> str:
    if place.field is None:
        return f"accepted: a section with the keys {', '.join(place.section.model_fields)}"
    words = accepted(place.field).replace("`", "")
    sample = example(place.field)
    return f"accepted: {words}" if sample is None else f"accepted: {words}, such as {sample}"
