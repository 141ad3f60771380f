"""The contract of every transport: `EdgeLink` sends evidence and receives replies, `ServerLink` does the reverse.

Both ends are async context managers: entering one connects it, leaving it closes it. Several cameras may share a link:
the edge names the camera of each message, and the server replies to the sender's address. A lost connection is not an
error: the link reconnects by itself and refuses messages, with a reason, until it is connected again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """The properties of a camera's evidence, which its edge announces to servers."""

    side: int  # units on a side of the grid on which the evidence is cut
    patch_size: int  # pixels on a side of a unit
    classes: str  # fingerprint of the class names, in order
    deadline_s: float  # the camera ignores a reply that arrives later than this after the frame
    heads: tuple[str, ...] = ()  # fingerprints (hex digits) of the heads that its next frames may have
    earlier_heads: tuple[str, ...] = ()  # of those that only frames on their way have
    backbone: str = ""  # fingerprint of the server model that these were taught on


@dataclass(frozen=True, slots=True)
class Message:
    """An evidence message, or a part of a head file, as the server's end of a link delivers it."""

    sender: str  # the camera's address
    data: bytes
    arrived_s: float  # monotonic clock
    session: bytes = b""  # opaque: the transport needs it to route the reply to the run that sent the message
    lost_parts: int = 0  # parts of the message that did not arrive
    refusal: str | None = None  # the transport's reason why the message must be refused; then `data` is its header only


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Stands in place of a reply: the message about a frame was sent, but did not reach the server."""

    seq: int


def node_of(address: str) -> str:
    """The node of a camera's address; the address itself where a transport has no nodes."""
    return address.partition("/")[0]


class EdgeLink(Protocol):
    """The edge's end of a link."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        """Uplink bits that a message of `message_bytes` costs, framing included. Never decreases with the size."""
        ...

    def max_message_bytes(self, camera: str) -> int:
        """The longest message that this link carries now; the connection may change it."""
        ...

    def refusal(self) -> str | None:
        """The reason why the link would refuse a message now; None if it would accept one. Call it before charging the
        budget."""
        ...

    def head_refusal(self, fingerprint: bytes) -> str | None:
        """The reason why the server cannot answer with a head now; None if it can, as far as the edge knows. Call it
        before charging the budget."""
        ...

    async def ready(self) -> None:
        """Waits until the link would accept a message, or is closed."""
        ...

    async def send(self, camera: str, message: bytes) -> str | None:
        """Hands a message to the transport. Returns None, or the reason for refusing it; a refused message costs no
        uplink bits."""
        ...

    def replies(self) -> AsyncIterator[tuple[str, bytes | Undelivered]]:
        """Pairs of camera and reply in order of arrival, until the link is closed."""
        ...


class ServerLink(Protocol):
    """The server's end of a link."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    @property
    def cameras(self) -> Mapping[str, CameraInfo]:
        """The connected cameras' announcements, by address. Empty where the transport has no announcements."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Evidence messages in order of arrival, until the link is closed."""
        ...

    async def seek_head(self, fingerprint: bytes) -> float:
        """Looks for a head where the transport stores heads; its parts come as `messages`. Returns the seconds in which
        they arrive if it is there; 0 where nothing is stored."""
        ...

    async def end_seeking(self, fingerprint: bytes) -> None:
        """The head is no longer looked for."""
        ...

    async def send_head_status(self, camera: str, status: bytes) -> None:
        """Sends a message about a head to the edge of a connected camera; it may be lost."""
        ...

    async def reply(self, message: Message, data: bytes) -> bool:
        """Sends `data` to the sender of `message`. False if the sender cannot be reached: the reply is lost."""
        ...
