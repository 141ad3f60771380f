"""The topic table of docs/mqtt.md, and what is retained under /state."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sagelink.transport.link import CameraInfo

SESSION_BYTES = 2  # before each evidence message, and before its reply
_MAX_STATE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics below one prefix. A camera's address is `node/camera`."""

    prefix: str

    def evidence(self, address: str) -> str:
        return f"{self.prefix}/{address}/evidence"

    def verdict(self, address: str) -> str:
        return f"{self.prefix}/{address}/verdict"

    def state(self, place: str) -> str:
        """Of a node, or of a camera by its address."""
        return f"{self.prefix}/{place}/state"

    def budget(self, node: str) -> str:
        return f"{self.prefix}/{node}/budget/set"

    def place_of(self, topic: str) -> str:
        """`node/camera` of an evidence or verdict topic; that or `node` of a state topic."""
        return topic[len(self.prefix) + 1 :].rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a node or a camera retains."""

    session: str  # of the run that announced it: what an earlier run of the same name left behind has another
    online: bool
    camera_info: CameraInfo | None = None  # of a camera that is online


def encode_state(session: bytes, online: bool, camera_info: CameraInfo | None = None) -> bytes:
    """As JSON; of a camera with its hello."""
    return json.dumps(
        {"online": online, "session": session.hex()} | (asdict(camera_info) if camera_info else {})
    ).encode()


def decode_state(data: bytes, of_camera: bool) -> NodeState | None:
    """None for what is no state."""
    if len(data) > _MAX_STATE_BYTES:
        return None
    try:
        state = json.loads(data)
        session, online, camera_info = str(state["session"]), state["online"] is True, None
        if of_camera and online:
            deadline_s = float(state["deadline_s"])
            camera_info = CameraInfo(
                int(state["side"]), int(state["patch_size"]), str(state["classes"])[:64], deadline_s
            )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return (
        NodeState(session, online, camera_info)
        if camera_info is None or 0 < camera_info.deadline_s < float("inf")
        else None
    )
