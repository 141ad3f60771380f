"""What a node says of itself and its cameras, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from sagelink.transport.link import CameraInfo

MAX_CAMERAS_OF_NODE = 256
_MAX_STATE_BYTES = 16_384


def encode_state(camera_info: CameraInfo, cameras: list[str], online: bool) -> bytes:
    """As JSON."""
    return json.dumps({"online": online, "cameras": cameras, **asdict(camera_info)}).encode()


def decode_state(data: bytes) -> tuple[CameraInfo, list[str]] | None:
    """The node's hello and its cameras; None for a node that has gone, or for what is no state."""
    if len(data) > _MAX_STATE_BYTES:
        return None
    try:
        state = json.loads(data)
        if state["online"] is not True:
            return None
        cameras = [str(name) for name in state["cameras"]][:MAX_CAMERAS_OF_NODE]
        deadline_s = float(state["deadline_s"])
        camera_info = CameraInfo(int(state["side"]), int(state["patch_size"]), str(state["classes"])[:64], deadline_s)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (camera_info, cameras) if 0 < deadline_s < float("inf") else None
