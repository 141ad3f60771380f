"""The MQTT topic names (docs/mqtt.md), and the JSON state that nodes and cameras retain under `/state`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sagelink.transport.camera_info_json import decode_announcement, encode_announcement, read_camera_info
from sagelink.transport.link import CameraInfo

SESSION_BYTES = 8  # of a run; the states hold it as hex digits
PREFIX_BYTES = 2  # first bytes of the session: stand before each evidence message, and before its reply
_MAX_STATE_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics below one prefix. A camera's address is `node/camera`."""

    prefix: str

    def evidence(self, address: str) -> str:
        return f"{self.prefix}/{address}/evidence"

    def verdict(self, address: str) -> str:
        return f"{self.prefix}/{address}/verdict"

    def event(self, address: str) -> str:
        return f"{self.prefix}/{address}/event"

    def picture(self, address: str) -> str:
        """Parts of the pictures of a camera's events."""
        return f"{self.prefix}/{address}/picture"

    def state(self, address: str) -> str:
        """`address`: of a node (`node`) or of a camera (`node/camera`)."""
        return f"{self.prefix}/{address}/state"

    def digest(self, address: str) -> str:
        """Counts of a camera once a minute, for a console."""
        return f"{self.prefix}/{address}/digest"

    def head(self, node: str, fingerprint: str, offset: str) -> str:
        """Of a part of a head: `fingerprint` in hex digits, `offset` of the part in its file."""
        return f"{self.prefix}/{node}/head/{fingerprint}/{offset}"

    def command(self, address: str) -> str:
        """Commands of an operator to a camera."""
        return f"{self.prefix}/{address}/command"

    def outcome(self, address: str) -> str:
        """The camera's answers to them."""
        return f"{self.prefix}/{address}/outcome"

    def camera_of_command(self, topic: str) -> str | None:
        """The address in a topic of `command`; None for another topic."""
        address = topic[len(self.prefix) + 1 :].removesuffix("/command")
        return address if topic == self.command(address) and address.count("/") == 1 else None

    def node_of_head(self, topic: str) -> str | None:
        """The node of a topic of `head`; None for another topic."""
        node, _, rest = topic[len(self.prefix) + 1 :].partition("/")
        return node if rest.startswith("head/") and rest.count("/") == 2 else None

    def state_request(self, node: str = "") -> str:
        """Asks a node, or all nodes, to publish its states again."""
        return f"{self.prefix}/{node}/state/get" if node else f"{self.prefix}/state/get"

    def claim(self, group: str) -> str:
        """Retained: which server serves, where the broker has no shared subscriptions."""
        return f"{self.prefix}/server/{group or '-'}/claim"

    def probe(self, server: str) -> str:
        """A server sends itself messages to find out whether the broker has shared subscriptions."""
        return f"{self.prefix}/server/{server}/probe"

    def budget(self, node: str) -> str:
        return f"{self.prefix}/{node}/budget/set"

    def presence(self, server: str) -> str:
        """`server`: its identifier, or `+` for all servers."""
        return f"{self.prefix}/servers/{server}/presence"

    def address_of(self, topic: str) -> str:
        """`node/camera` of an evidence or verdict topic; `node/camera` or `node` of a state topic."""
        return topic[len(self.prefix) + 1 :].rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class NodeState:
    """The retained state of a node or a camera."""

    session: str  # differs for each run, so a state that an earlier run of the same name left behind is recognized
    online: bool
    camera_info: CameraInfo | None = None  # only of a camera that is online


def encode_state(session: bytes, online: bool, camera_info: CameraInfo | None = None) -> bytes:
    """`camera_info`: given for a camera, None for a node."""
    return encode_announcement(online, {"session": session.hex()}, camera_info)


def decode_state(data: bytes, of_camera: bool) -> NodeState | None:
    """None if `data` is malformed; an online camera must carry a CameraInfo."""

    def read_state(fields: dict[str, Any]) -> NodeState:
        session, online = str(fields["session"]), fields["online"] is True
        bytes.fromhex(session)
        return NodeState(session, online, read_camera_info(fields) if of_camera and online else None)

    return decode_announcement(data, _MAX_STATE_BYTES, read_state)
