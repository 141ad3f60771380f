"""Parses and formats rates, sizes and durations, such as `64kbit/s`, `2kB`, `500ms`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z/]*)\s*")
_PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
_RATES = {f"{p}{unit}": f for p, f in _PREFIXES.items() for unit in ("bit/s", "bps")}
_RATES |= {f"{p}B/s": 8 * f for p, f in _PREFIXES.items()}
_SIZES = {f"{p}B": f for p, f in _PREFIXES.items()} | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _parse(value: object, units: dict[str, float] | dict[str, int], kind: str, examples: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a {kind} is written like {examples}; got {value!r}")
    match = _NUMBER.fullmatch(str(value))
    unit = match[2] if match else None
    if match is None or (unit and unit not in units):
        raise ValueError(f"a {kind} is written like {examples}; got {value!r}")
    number = float(match[1]) * (units[unit] if unit else 1)
    if not 0 < number < float("inf"):
        raise ValueError(f"a {kind} must be above 0; got {value!r}")
    return number


def parse_rate(value: object) -> float | None:
    """Returns bits per second; a plain number is in bit/s; `unlimited` gives None. Raises ValueError."""
    if value == "unlimited":
        return None
    return _parse(value, _RATES, "rate", "64kbit/s, 0.5Mbit/s, 8kB/s or unlimited")


def parse_size(value: object) -> int:
    """Returns bytes; k is 1000, Ki is 1024; a plain number is in bytes. Raises ValueError."""
    size = round(_parse(value, _SIZES, "size", "2kB, 1.5MB or 64KiB"))
    if size < 1:
        raise ValueError(f"a size is at least one byte; got {value!r}")
    return size


def parse_duration(value: object) -> float:
    """Returns seconds; a plain number is in seconds. Raises ValueError."""
    return _parse(value, _DURATIONS, "duration", "500ms, 1s or 2min")


def parse_frame_size(value: object) -> tuple[int, int]:
    """Returns width and height in pixels, from `1280x720` or from two numbers. Raises ValueError."""
    words = value.split("x") if isinstance(value, str) else value
    try:
        width, height = (int(word) for word in words)  # type: ignore[attr-defined]  # other values raise
    except (TypeError, ValueError):
        raise ValueError(f"a picture size is written like 1280x720; got {value!r}") from None
    if not (0 < width <= 16384 and 0 < height <= 16384):
        raise ValueError(f"a picture size is 1 to 16384 pixels a side; got {value!r}")
    return width, height


def format_rate(rate_bps: float | None) -> str:
    """Returns text such as `64 kbit/s` or `unlimited`."""
    if rate_bps is None:
        return "unlimited"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate_bps >= factor:
            return f"{rate_bps / factor:.4g} {prefix}bit/s"
    return f"{rate_bps:.4g} bit/s"


Rate = Annotated[
    float | None, BeforeValidator(parse_rate), PlainSerializer(lambda rate: "unlimited" if rate is None else rate)
]
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
FrameSize = Annotated[
    tuple[int, int], BeforeValidator(parse_frame_size), PlainSerializer(lambda size: f"{size[0]}x{size[1]}")
]
