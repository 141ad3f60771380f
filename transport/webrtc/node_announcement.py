"""A node's announcement over WebRTC as JSON: its camera names, the CameraInfo that they share, and its run's secret."""

from __future__ import annotations

from typing import Any

from sagelink.transport.camera_info_json import decode_announcement, encode_announcement, read_camera_info
from sagelink.transport.link import CameraInfo

MAX_CAMERAS_OF_NODE = 256
_MAX_STATE_BYTES = 16_384


def encode_state(camera_info: CameraInfo, cameras: list[str], online: bool, secret: str) -> bytes:
    """`secret`: of the run; it proves to the server that a new connection is of the same run."""
    return encode_announcement(online, {"cameras": cameras, "secret": secret}, camera_info)


def decode_state(data: bytes) -> tuple[CameraInfo, list[str], str] | None:
    """CameraInfo, camera names and secret; None if the node is offline or the announcement is malformed."""
    return decode_announcement(data, _MAX_STATE_BYTES, _read_state)


def _read_state(fields: dict[str, Any]) -> tuple[CameraInfo, list[str], str] | None:
    if fields["online"] is not True:
        return None
    cameras = [str(name) for name in fields["cameras"]][:MAX_CAMERAS_OF_NODE]
    return read_camera_info(fields), cameras, str(fields["secret"])
