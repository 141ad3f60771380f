"""A node's announcement over WebRTC as JSON: its cameras with their CameraInfo, and its run's secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sagelink.transport.camera_info_json import decode_announcement, encode_announcement, read_camera_info
from sagelink.transport.link import CameraInfo

MAX_CAMERAS_OF_NODE = 256
_MAX_STATE_BYTES = 40_000


def encode_state(
    camera_info: CameraInfo, cameras: list[str], online: bool, secret: str, heads: Mapping[str, Sequence[str]]
) -> bytes:
    """`secret`: of the run; it proves to the server that a new connection is of the same run. `heads`: fingerprints of
    the heads of each camera, by its name."""
    given = {camera: list(found) for camera, found in heads.items() if found}
    own: dict[str, object] = {"cameras": cameras, "secret": secret}
    return encode_announcement(online, own | ({"camera_heads": given} if given else {}), camera_info)


def decode_state(data: bytes) -> tuple[dict[str, CameraInfo], str] | None:
    """CameraInfo by camera, and secret; None if the node is offline or the announcement is malformed."""
    return decode_announcement(data, _MAX_STATE_BYTES, _read_state)


def _read_state(fields: dict[str, Any]) -> tuple[dict[str, CameraInfo], str] | None:
    if fields["online"] is not True:
        return None
    cameras = [str(name) for name in fields["cameras"]][:MAX_CAMERAS_OF_NODE]
    heads = dict(fields.get("camera_heads", {}))
    infos = {camera: read_camera_info(fields | {"heads": heads.get(camera, ())}) for camera in cameras}
    return infos, str(fields["secret"])
