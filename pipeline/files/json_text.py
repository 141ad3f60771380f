"""Writes JSON that every reader accepts: the one place that turns values of this program into JSON text."""

from __future__ import annotations

import json
import math


def to_json(value: object, indent: int | None = None, compact: bool = False) -> str:
    """JSON text of plain values. Numbers that are not finite become null: JSON has no NaN and no infinity.

    `compact`: without spaces. Raises TypeError for a value that is not plain.
    """
    separators = (",", ":") if compact else None
    try:
        return json.dumps(value, indent=indent, separators=separators, allow_nan=False)
    except ValueError:  # rare, so that usual values are not copied
        return json.dumps(_finite(value), indent=indent, separators=separators, allow_nan=False)


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
    return value
