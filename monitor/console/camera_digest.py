"""The digest that an edge sends once a minute for a console (docs/console.md): what the server's side cannot know.

Pure: `encode_digest` at the edge, `read_digest` at the console, which trusts no value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagelink.monitor.console.events_seen import number, shown
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.types import Drop

_ORIGINS = ("edge", "server", "fused")
_DROPS = tuple(drop.value for drop in Drop)
_SETTINGS = ("uplink", "rate_bps", "window_s", "gate", "threshold", "pace", "paused")


@dataclass(frozen=True, slots=True)
class QuotaDigest:
    """A quota of a camera: that of the month, or else the one that is used most."""

    name: str
    used_bits: int
    limit_bits: int


@dataclass(frozen=True, slots=True)
class CameraDigest:
    """Counts since the run began, and the state now."""

    frames: int
    origins: Mapping[str, int]
    drops: Mapping[str, int]  # frames by drop reason
    wire_bits: int
    rate_bps: float | None  # of the budget; None: no limit
    window_s: float
    round_trip_ms: float | None  # median, from sending a message to its answer
    camera: str  # `running`, or the fault
    settings: Mapping[str, Any]  # gate, threshold, pace, paused
    quota: QuotaDigest | None = None


def encode_digest(digest: CameraDigest) -> bytes:
    """Compact JSON with short keys: every byte is charged."""
    values = {
        "n": digest.frames,
        "o": {key: count for key, count in digest.origins.items() if count},
        "d": {key: count for key, count in digest.drops.items() if count},
        "b": digest.wire_bits,
        "r": digest.rate_bps,
        "w": digest.window_s,
        "t": None if digest.round_trip_ms is None else round(digest.round_trip_ms),
        "c": digest.camera,
        "s": dict(digest.settings),
        "q": digest.quota and [digest.quota.name, digest.quota.used_bits, digest.quota.limit_bits],
    }
    return to_json({key: value for key, value in values.items() if value not in (None, {})}, compact=True).encode()


def read_digest(record: Mapping[str, Any]) -> CameraDigest:
    """The digest in a JSON object; unknown keys are ignored, and wrong values count as absent."""
    settings = record.get("s")
    rate = record.get("r")
    return CameraDigest(
        frames=int(number(record.get("n"))),
        origins=_counts(record.get("o"), _ORIGINS),
        drops=_counts(record.get("d"), _DROPS),
        wire_bits=int(number(record.get("b"))),
        rate_bps=None if rate is None else number(rate),
        window_s=number(record.get("w"), 1.0),
        round_trip_ms=None if record.get("t") is None else number(record.get("t")),
        camera=shown(record.get("c", "running")),
        settings=read_settings(settings if isinstance(settings, dict) else {}),
        quota=_quota(record.get("q")),
    )


def _quota(value: object) -> QuotaDigest | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    used_bits, limit_bits = (max(0, int(number(each))) for each in value[1:])
    return QuotaDigest(shown(value[0]), used_bits, limit_bits) if limit_bits else None


def read_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a camera from outside: the known keys, with harmless values."""
    return {key: _harmless(values[key]) for key in _SETTINGS if key in values}


def _harmless(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    return shown(value) if isinstance(value, str) else number(value)


def _counts(value: object, accepted: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {key: max(0, int(number(value[key]))) for key in accepted if key in value}
