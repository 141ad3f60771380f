"""What every transport offers to the two sides.

Both ends are async context managers: entered, they connect; left, they close. Several cameras may share a link, so a
message goes with its camera's name up, and to its sender's address down. Losing a connection is no error: a link mends
itself, and says meanwhile why it takes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """What a camera announces to servers."""

    side: int  # units on a side of the grid that its evidence is cut on
    patch_size: int  # pixels on a side of a unit
    classes: str  # fingerprint of the class names, in order
    deadline_s: float  # a reply later than this is of no use


@dataclass(frozen=True, slots=True)
class Message:
    """Evidence as it comes out of a link."""

    sender: str  # the camera's address
    data: bytes
    arrived_s: float  # monotonic clock
    session: bytes = b""  # of the sender; a transport may tell by it a reply that the sender no longer waits for
    lost_parts: int = 0  # that belong to it and have not come


class EdgeLink(Protocol):
    """The edge's end."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        """Uplink bits of one message of that many bytes, framing included. Never falls as messages grow."""
        ...

    def refusal(self) -> str | None:
        """Why no message would be taken now; None when one would be. Asked before the budget is charged."""
        ...

    async def ready(self) -> None:
        """Waits until a message would be taken, or the link is closed."""
        ...

    async def send(self, camera: str, message: bytes) -> str | None:
        """Hands a message to the transport; None, or why it was not taken. A refused message is not on the wire."""
        ...

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        """Camera and reply, as they come, until the link is closed."""
        ...


class ServerLink(Protocol):
    """The server's end."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    @property
    def cameras(self) -> Mapping[str, CameraInfo]:
        """What the cameras that are there have announced, by address. A transport may know of none."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Evidence, as it comes, until the link is closed."""
        ...

    async def reply(self, message: Message, data: bytes) -> bool:
        """Sends the reply to a message; False where there is no way to its sender now, so that it is lost."""
        ...
