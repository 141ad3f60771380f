"""Parses and formats rates, sizes and durations, such as `64kbit/s`, `2kB`, `500ms`.

Text needs a unit: `64` as a rate could mean 64 bit/s or 64 kbit/s. A number from a program is in bit/s, bytes or
seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.errors import suggest

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z/]*)\s*")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of quantity: how it is written, and the factor of each unit."""

    name: str
    examples: str
    units: Mapping[str, float]  # by the name that errors list
    synonyms: Mapping[str, float]  # accepted too
    likely: tuple[str, ...]  # units that a number without a unit may have meant, most likely first

    def parse(self, value: object) -> float:
        """The value in the base unit. Raises ValueError that names the value, examples and units."""
        match = _NUMBER.fullmatch(str(value)) if isinstance(value, str | int | float) else None
        if match is None or isinstance(value, bool):
            raise self._refusal(value)
        digits, unit = match[1], match[2]
        if unit:
            factor = self.units.get(unit) or self.synonyms.get(unit)
            if factor is None:
                raise self._refusal(value, suggest(unit, [*self.units]))
        elif isinstance(value, str):
            meant = " or ".join(", ".join(digits + unit for unit in self.likely).rsplit(", ", 1))
            raise self._refusal(value, f" without a unit: did you mean {meant}?")
        else:
            factor = 1
        number = float(digits) * factor
        if not 0 < number < math.inf:
            raise ValueError(f"a {self.name} must be above 0; got {value!r}")
        return number

    def format(self, number: float) -> str:
        """Text from which `parse` gets exactly this number: a whole number of some unit, where there is one."""
        base = next(iter(self.units))
        counts = ((number / factor, unit) for unit, factor in self.units.items() if unit.endswith(base))
        texts = [f"{count:.0f}{unit}" for count, unit in counts if count.is_integer()]
        exact = [text for text in texts if self.parse(text) == number]
        return min(exact, key=len, default=f"{number!r}{base}")

    def _refusal(self, value: object, reason: str = "") -> ValueError:
        units = ", ".join(self.units)
        return ValueError(f"a {self.name} is written like {self.examples} (units: {units}); got {value!r}{reason}")


def _prefixed(unit: str, factor: float = 1, prefixes: str = " kMG") -> dict[str, float]:
    return {f"{prefix.strip()}{unit}": factor * 1000 ** " kMG".index(prefix) for prefix in prefixes}


_RATE = _Kind(
    "rate",
    "64kbit/s, 0.5Mbit/s, 8kB/s or unlimited",
    _prefixed("bit/s") | _prefixed("B/s", 8),
    _prefixed("bps") | {f"K{unit}": 1000 * factor for unit, factor in (("bit/s", 1), ("bps", 1), ("B/s", 8))},
    ("kbit/s", "Mbit/s", "bit/s"),
)
_SIZE = _Kind(
    "size",
    "2kB, 1.5MB or 64KiB",
    _prefixed("B") | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    {"KB": 1000},
    ("kB", "MB", "B"),
)
_DURATION = _Kind(
    "duration",
    "500ms, 1s, 2min, 1h or 1d",
    {"s": 1, "us": 1e-6, "ms": 1e-3, "min": 60, "h": 3600, "d": 86_400},
    {},
    ("s", "min", "h"),
)


def parse_rate(value: object) -> float | None:
    """Returns bits per second; a number is in bit/s, text needs a unit; `unlimited` gives None. Raises ValueError."""
    return None if value == "unlimited" else _RATE.parse(value)


def parse_size(value: object) -> int:
    """Returns bytes; k is 1000, Ki is 1024; a number is in bytes, text needs a unit. Raises ValueError."""
    size = round(_SIZE.parse(value))
    if size < 1:
        raise ValueError(f"a size is at least one byte; got {value!r}")
    return size


def parse_duration(value: object) -> float:
    """Returns seconds; a number is in seconds, text needs a unit. Raises ValueError."""
    return _DURATION.parse(value)


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


@dataclass(frozen=True, slots=True)
class RetentionLimit:
    """How long files are kept, and how many bytes of them; None: no limit of that kind."""

    age_s: float | None = None
    size_bytes: int | None = None


def parse_retention(value: object) -> RetentionLimit:
    """From `30d`, `2GB`, or both: `30d, 2GB`. Raises ValueError."""
    if isinstance(value, RetentionLimit):
        return value
    parts = value.split(",") if isinstance(value, str) else [*value] if isinstance(value, list | tuple) else []
    ages: list[float] = []
    sizes: list[int] = []
    for part in map(str, parts):
        if re.search(r"(s|min|h|d)\s*$", part):
            ages.append(parse_duration(part))
        else:
            sizes.append(parse_size(part))
    if len(ages) > 1 or len(sizes) > 1 or not parts:
        raise ValueError(f"accepted: an age, a size, or both, such as 30d or 2GB or 30d, 2GB; got {value!r}")
    return RetentionLimit(next(iter(ages), None), next(iter(sizes), None))


def format_retention(limit: RetentionLimit) -> str:
    """Text from which `parse_retention` gets the same limit."""
    age = [] if limit.age_s is None else [_DURATION.format(limit.age_s)]
    if limit.age_s is not None and not limit.age_s % 86_400:
        age = [f"{limit.age_s / 86_400:.0f}d"]
    return ", ".join(age + ([] if limit.size_bytes is None else [_SIZE.format(limit.size_bytes)]))


def format_rate(rate_bps: float | None) -> str:
    """Returns text such as `64 kbit/s` or `unlimited`."""
    if rate_bps is None:
        return "unlimited"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate_bps >= factor:
            return f"{rate_bps / factor:.4g} {prefix}bit/s"
    return f"{rate_bps:.4g} bit/s"


def format_bytes(size: float) -> str:
    """Returns text such as `12.3 MB`; 1 MB is 1000000 bytes."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def format_duration(duration_s: float) -> str:
    """Returns text for people, such as `40 s`, `5 min` or `2 h 10 min`."""
    if duration_s < 100:
        return f"{max(1, round(duration_s))} s"
    minutes = round(duration_s / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _write_rate(rate_bps: float | None) -> str:
    return "unlimited" if rate_bps is None else _RATE.format(rate_bps)


Rate = Annotated[
    float | None, BeforeValidator(parse_rate), PlainSerializer(_write_rate), Accepts("rate or `unlimited`", "64kbit/s")
]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(_SIZE.format), Accepts("size", "2kB")]
Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(_DURATION.format), Accepts("duration", "500ms")
]
FrameSize = Annotated[
    tuple[int, int],
    BeforeValidator(parse_frame_size),
    PlainSerializer(lambda size: f"{size[0]}x{size[1]}"),
    Accepts("width x height", "1280x720"),
]
Retention = Annotated[
    RetentionLimit,
    BeforeValidator(parse_retention),
    PlainSerializer(format_retention),
    Accepts("age, size, or both", "'30d, 2GB'"),
]
