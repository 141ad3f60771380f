"""The link between edge and server in one process: real wire bytes over two bounded channels, without framing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Self

from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.transport.envelope import MAX_MESSAGE_BYTES
from sagelink.transport.link import CameraInfo, Message


class InProcessLink:
    """An EdgeLink and a ServerLink in one. A camera's address is its name."""

    def __init__(self, capacity: int = 8) -> None:
        self._uplink: Channel[Message] = Channel("uplink", capacity=capacity)
        self._downlink: Channel[tuple[str, bytes]] = Channel("downlink", capacity=capacity)
        self.cameras: Mapping[str, CameraInfo] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._downlink.close()

    def close(self) -> None:
        """Accepts no more messages; replies to messages already accepted are delivered until the link is left."""
        self._uplink.close()

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return 8 * message_bytes

    def max_message_bytes(self, camera: str) -> int:
        return MAX_MESSAGE_BYTES

    def refusal(self) -> str | None:
        return "the link is closed" if self._uplink.closed else None

    def head_refusal(self, fingerprint: bytes) -> str | None:
        return None  # the server has the heads of the run

    async def ready(self) -> None:
        """Returns at once: `send` itself waits for room."""

    async def send(self, camera: str, message: bytes) -> str | None:
        if len(message) > MAX_MESSAGE_BYTES:
            return f"{len(message)} bytes; accepted: up to {MAX_MESSAGE_BYTES}"
        try:
            await self._uplink.put(Message(camera, message, time.monotonic()))
        except ChannelClosed:
            return self.refusal()
        return None

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._downlink)

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._uplink)

    async def seek_head(self, fingerprint: bytes) -> float:
        return 0.0

    async def end_seeking(self, fingerprint: bytes) -> None:
        """Does nothing."""

    async def send_head_status(self, camera: str, status: bytes) -> None:
        """Does nothing."""

    async def reply(self, message: Message, data: bytes) -> bool:
        try:
            await self._downlink.put((message.sender, data))
        except ChannelClosed:
            return False
        return True
