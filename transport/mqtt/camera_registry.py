"""The cameras that are online, computed from the retained states of nodes and cameras. Pure: no I/O.

A camera is online while its node is online in the same session: the broker publishes only the node's last will when an
edge dies, and a run that died may have left states of cameras that no longer exist.
"""

from __future__ import annotations

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.topics import NodeState, decode_state


class CameraRegistry:
    """`online` maps the address `node/camera` of each online camera to its CameraInfo."""

    def __init__(self, max_entries: int = 200_000) -> None:
        """`max_entries`: cameras, and nodes, that are tracked; states of further ones are ignored."""
        self._max_entries = max_entries
        self.online: dict[str, CameraInfo] = {}
        self._sessions: dict[str, str] = {}  # session of each online node, by node
        self._announced: dict[str, dict[str, NodeState]] = {}  # online cameras by node and address, with any session
        self._announced_count = 0

    def update(self, address: str, payload: bytes) -> None:
        """Applies the state that was published for a node or a camera; a malformed one counts as offline."""
        node, is_camera, _ = address.partition("/")
        state = decode_state(payload, bool(is_camera))
        if is_camera:
            self._update_camera(node, address, state)
            self._refresh(node, address)
        else:
            self._update_node(node, state)
            for camera in self._announced.get(node, ()):
                self._refresh(node, camera)

    def _update_camera(self, node: str, address: str, state: NodeState | None) -> None:
        cameras = self._announced.setdefault(node, {})
        if cameras.pop(address, None):
            self._announced_count -= 1
        if state is not None and state.online and self._announced_count < self._max_entries:
            cameras[address] = state
            self._announced_count += 1
        if not cameras:
            del self._announced[node]

    def _update_node(self, node: str, state: NodeState | None) -> None:
        if state is not None and state.online:
            if node in self._sessions or len(self._sessions) < self._max_entries:
                self._sessions[node] = state.session
        elif state is None or state.session == self._sessions.get(node):  # else: the late will of an earlier run
            self._sessions.pop(node, None)

    def _refresh(self, node: str, address: str) -> None:
        """Adds a camera to `online`, or removes it."""
        camera = self._announced.get(node, {}).get(address)
        if camera is not None and camera.camera_info and camera.session == self._sessions.get(node):
            self.online[address] = camera.camera_info
        else:
            self.online.pop(address, None)
