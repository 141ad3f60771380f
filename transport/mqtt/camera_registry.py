"""The cameras that are online, computed from the retained states of nodes and cameras. Pure: no I/O.

A camera is online while its node is online in the same session: the broker publishes only the node's last will when an
edge dies, and a run that died may have left states of cameras that no longer exist.

Memory is bounded per node and in total, in bytes. When the total is used up, the node with the most bytes loses its
oldest camera: a node with invented names loses its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.topics import NodeState, decode_state

_ENTRY_BYTES = 600  # memory of an entry besides its state, about


@dataclass(slots=True)
class _KnownNode:
    session: str | None = None  # while it is online
    cameras: dict[str, tuple[NodeState, int]] = field(default_factory=dict)  # by address; with any session; and bytes
    size_bytes: int = _ENTRY_BYTES


class CameraRegistry:
    """`online` maps the address `node/camera` of each online camera to its CameraInfo."""

    def __init__(
        self,
        max_bytes: int = 256_000_000,
        max_node_bytes: int = 8_000_000,
        on_change: Callable[[str], None] = lambda address: None,
    ) -> None:
        """`max_bytes`: of all states; `max_node_bytes`: of the states of one node, about 10,000 cameras. `on_change` is
        called with the address of each camera that comes online, goes offline or announces something else."""
        self._max_bytes = max_bytes
        self._max_node_bytes = max_node_bytes
        self._on_change = on_change
        self._nodes: dict[str, _KnownNode] = {}
        self._size_bytes = 0
        self.online: dict[str, CameraInfo] = {}

    def update(self, address: str, payload: bytes) -> None:
        """Applies the state that was published for a node or a camera; a malformed one counts as offline."""
        name, is_camera, _ = address.partition("/")
        state = decode_state(payload, bool(is_camera))
        node = self._nodes.get(name)
        if node is None:
            if state is None or not state.online:
                return
            node = self._nodes[name] = _KnownNode()
            self._size_bytes += node.size_bytes
        if is_camera:
            self._update_camera(node, address, state, len(address) + len(payload) + _ENTRY_BYTES)
            self._refresh(node, address)
        else:
            self._update_node(node, state)
            for camera in node.cameras:
                self._refresh(node, camera)
        if not node.cameras and node.session is None:
            self._size_bytes -= node.size_bytes
            del self._nodes[name]
        while self._size_bytes > self._max_bytes:
            self._shrink_largest()

    def session_of(self, address: str) -> str | None:
        """The session of an online camera, as hex digits; None for any other."""
        if address not in self.online:
            return None
        return self._nodes[address.partition("/")[0]].session

    def _update_camera(self, node: _KnownNode, address: str, state: NodeState | None, size_bytes: int) -> None:
        self._forget(node, address)
        if state is not None and state.online and node.size_bytes + size_bytes <= self._max_node_bytes:
            node.cameras[address] = state, size_bytes
            self._resize(node, size_bytes)

    def _update_node(self, node: _KnownNode, state: NodeState | None) -> None:
        if state is not None and state.online:
            node.session = state.session
        elif state is None or state.session == node.session:  # else: the late will of an earlier run
            node.session = None

    def _refresh(self, node: _KnownNode, address: str) -> None:
        """Adds a camera to `online`, or removes it."""
        before = self.online.get(address)
        camera, _ = node.cameras.get(address, (None, 0))
        if camera is not None and camera.camera_info and camera.session == node.session:
            self.online[address] = camera.camera_info
        else:
            self.online.pop(address, None)
        if self.online.get(address) != before:
            self._on_change(address)

    def _forget(self, node: _KnownNode, address: str) -> None:
        _, size_bytes = node.cameras.pop(address, (None, 0))
        self._resize(node, -size_bytes)

    def _resize(self, node: _KnownNode, change_bytes: int) -> None:
        node.size_bytes += change_bytes
        self._size_bytes += change_bytes

    def _shrink_largest(self) -> None:
        name, node = max(self._nodes.items(), key=lambda entry: entry[1].size_bytes)
        if node.cameras:
            address = next(iter(node.cameras))
            self._forget(node, address)
            self._refresh(node, address)
        else:
            self._size_bytes -= node.size_bytes
            del self._nodes[name]
