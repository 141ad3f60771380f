"""Source addresses of events: `frigate:mqtt://host[:port][/camera]` and `mqtt-snapshots:mqtt://host[:port]/topic`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError

FRIGATE, SNAPSHOTS = "frigate:", "mqtt-snapshots:"
_MAX_TOPIC = 512  # characters


@dataclass(frozen=True, slots=True)
class EventAddress:
    """The parts of a source address."""

    kind: Literal["frigate", "mqtt-snapshots"]
    broker: str  # mqtt://host[:port] or mqtts://host[:port]
    path: str  # Frigate's camera, or empty; the topic filter


def is_event_source(source: str) -> bool:
    return source.startswith((FRIGATE, SNAPSHOTS))


def event_address(source: str) -> EventAddress:
    """Raises UsageError. Does not check the address of the broker."""
    kind: Literal["frigate", "mqtt-snapshots"] = "frigate" if source.startswith(FRIGATE) else "mqtt-snapshots"
    scheme, separator, rest = source.removeprefix(f"{kind}:").partition("://")
    host, _, path = rest.partition("/")
    if not separator or scheme not in ("mqtt", "mqtts") or not host:
        raise _refused(source, kind)
    if kind == "frigate" and (set(path) & set("/+#? ") or len(path) > 100):
        raise _refused(source, kind)
    if kind == "mqtt-snapshots" and not _is_filter(path):
        raise _refused(source, kind)
    return EventAddress(kind, f"{scheme}://{host}", path)


def _is_filter(topic: str) -> bool:
    """Whether a text is an MQTT topic filter: + and # are whole levels, and # is the last one."""
    levels = topic.split("/")
    wild = any(set(level) & set("+#") and level not in ("+", "#") for level in levels)
    return bool(topic) and len(topic) <= _MAX_TOPIC and not wild and "#" not in levels[:-1] and "\0" not in topic


def _refused(source: str, kind: str) -> UsageError:
    forms = {
        "frigate": "frigate:mqtt://host[:port] for all cameras of Frigate, or frigate:mqtt://host[:port]/camera for "
        "one; mqtts:// for TLS",
        "mqtt-snapshots": "mqtt-snapshots:mqtt://host[:port]/topic; the topic may hold + and #; mqtts:// for TLS",
    }
    return UsageError(f"source {redact(source)!r}; accepted: {forms[kind]}")
