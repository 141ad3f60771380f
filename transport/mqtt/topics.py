"""The topic table of docs/mqtt.md, and what is retained under /state."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from transport.link import Hello

SESSION_BYTES = 2  # before each evidence message, and before its reply
MAX_CAMERAS_OF_NODE = 256
_MAX_STATE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics below one prefix. A camera's address is `node/camera`."""

    prefix: str

    def evidence(self, address: str) -> str:
        return f"{self.prefix}/{address}/evidence"

    def verdict(self, address: str) -> str:
        return f"{self.prefix}/{address}/verdict"

    def state(self, node: str) -> str:
        return f"{self.prefix}/{node}/state"

    def budget(self, node: str) -> str:
        return f"{self.prefix}/{node}/budget/set"

    def address_of(self, topic: str) -> str:
        """`node/camera` of an evidence or verdict topic."""
        return topic[len(self.prefix) + 1 :].rpartition("/")[0]

    def node_of(self, topic: str) -> str:
        """The node of a state topic."""
        return topic[len(self.prefix) + 1 :].partition("/")[0]


def encode_state(hello: Hello, cameras: list[str], online: bool) -> bytes:
    """What a node retains, as JSON."""
    return json.dumps({"online": online, "cameras": cameras, **asdict(hello)}).encode()


def decode_state(data: bytes) -> tuple[Hello, list[str]] | None:
    """The node's hello and its cameras; None for a node that has gone, or for what is no state."""
    if len(data) > _MAX_STATE_BYTES:
        return None
    try:
        state = json.loads(data)
        if state["online"] is not True:
            return None
        cameras = [str(name) for name in state["cameras"]][:MAX_CAMERAS_OF_NODE]
        deadline_s = float(state["deadline_s"])
        hello = Hello(int(state["side"]), int(state["patch_size"]), str(state["classes"])[:64], deadline_s)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (hello, cameras) if 0 < deadline_s < float("inf") else None
