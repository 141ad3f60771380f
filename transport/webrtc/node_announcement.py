"""A node's announcement over WebRTC as JSON: its cameras with their CameraInfo, and its run's secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sagelink.transport.camera_info_json import decode_announcement, encode_announcement, read_camera_info
from sagelink.transport.link import CameraInfo

MAX_CAMERAS_OF_NODE = 256
_MAX_STATE_BYTES = 40_000


def encode_state(cameras: Mapping[str, CameraInfo], online: bool, secret: str) -> bytes:
    """`cameras`: by name; they may differ in their heads only. `secret`: of the run; it proves to the server that a new
    connection is of the same run."""
    heads = {
        name: {"heads": info.heads, "earlier_heads": info.earlier_heads}
        for name, info in cameras.items()
        if info.heads or info.earlier_heads
    }
    backbone = next((info.backbone for info in cameras.values() if info.backbone), "")
    common = replace(next(iter(cameras.values())), heads=(), earlier_heads=(), backbone=backbone)
    own: dict[str, object] = {"cameras": [*cameras], "secret": secret}
    return encode_announcement(online, own | ({"camera_heads": heads} if heads else {}), common)


def decode_state(data: bytes) -> tuple[dict[str, CameraInfo], str] | None:
    """CameraInfo by camera, and secret; None if the node is offline or the announcement is malformed."""
    return decode_announcement(data, _MAX_STATE_BYTES, _read_state)


def _read_state(fields: dict[str, Any]) -> tuple[dict[str, CameraInfo], str] | None:
    if fields["online"] is not True:
        return None
    cameras = [str(name) for name in fields["cameras"]][:MAX_CAMERAS_OF_NODE]
    heads = dict(fields.get("camera_heads", {}))
    infos = {camera: read_camera_info(fields | dict(heads.get(camera, {}))) for camera in cameras}
    return infos, str(fields["secret"])
