"""The JSON form of announcements: whether a node or camera is online, a transport's own fields, and the CameraInfo."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from sagelink.pipeline.files.json_text import to_json
from sagelink.transport.head_messages import FINGERPRINT_BYTES
from sagelink.transport.link import CameraInfo

_MAX_FINGERPRINT = 64  # characters
_MAX_HEADS = 16  # of a camera

T = TypeVar("T")


def encode_announcement(online: bool, own_fields: Mapping[str, object], camera_info: CameraInfo | None) -> bytes:
    """`own_fields`: fields of one transport; `camera_info`: its fields stand at the top level too."""
    return to_json({"online": online, **own_fields, **(_fields(camera_info) if camera_info else {})}).encode()


def decode_announcement(data: bytes, max_bytes: int, read: Callable[[Any], T | None]) -> T | None:
    """The result of `read` on the parsed JSON; None if `data` is too long, not JSON, or `read` fails on it."""
    if len(data) > max_bytes:
        return None
    try:
        return read(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def read_camera_info(fields: Mapping[str, Any]) -> CameraInfo:
    """Reads the fields of an announcement. Raises KeyError, TypeError, ValueError or OverflowError for bad ones."""
    deadline_s = float(fields["deadline_s"])
    if not 0 < deadline_s < math.inf:
        raise ValueError("deadline_s is not a positive number")
    classes = str(fields["classes"])[:_MAX_FINGERPRINT]
    heads, earlier = _read_heads(fields.get("heads", ())), _read_heads(fields.get("earlier_heads", ()))
    backbone = str(fields.get("backbone", ""))[:_MAX_FINGERPRINT]
    return CameraInfo(int(fields["side"]), int(fields["patch_size"]), classes, deadline_s, heads, earlier, backbone)


def _read_heads(value: Any) -> tuple[str, ...]:
    heads = tuple(map(str, value))
    if len(heads) > _MAX_HEADS or any(len(bytes.fromhex(head)) != FINGERPRINT_BYTES for head in heads):
        raise ValueError("heads are not fingerprints")
    return heads


def _fields(camera_info: CameraInfo) -> dict[str, object]:
    """Without those of heads where there are none."""
    return {key: value for key, value in asdict(camera_info).items() if value not in ((), "")}
