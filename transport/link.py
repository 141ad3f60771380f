"""What every transport offers to the two sides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class EdgeLink(Protocol):
    """The edge's end."""

    def wire_bits(self, message_bytes: int) -> int:
        """Uplink bits of one message of that many bytes, framing included. Never falls as messages grow."""
        ...

    async def send(self, message: bytes) -> bool:
        """Hands a message to the transport; False when it takes none now. A refused message is not on the wire."""
        ...

    def replies(self) -> AsyncIterator[bytes]:
        """The server's replies, until the link is closed."""
        ...


class ServerLink(Protocol):
    """The server's end."""

    def messages(self) -> AsyncIterator[bytes]:
        """Evidence messages, until the link is closed."""
        ...

    async def reply(self, message: bytes) -> None:
        """Sends one reply."""
        ...
