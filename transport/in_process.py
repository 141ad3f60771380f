"""Both sides in one process: real wire bytes over two bounded channels, no framing."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pipeline.channel import Channel, ChannelClosed


class InProcessLink:
    """An EdgeLink and a ServerLink in one."""

    def __init__(self, capacity: int = 8) -> None:
        self._up: Channel[bytes] = Channel("uplink", capacity=capacity)
        self._down: Channel[bytes] = Channel("downlink", capacity=capacity)

    def wire_bits(self, message_bytes: int) -> int:
        return 8 * message_bytes

    async def send(self, message: bytes) -> bool:
        try:
            await self._up.put(message)
        except ChannelClosed:
            return False
        return True

    def replies(self) -> AsyncIterator[bytes]:
        return aiter(self._down)

    def messages(self) -> AsyncIterator[bytes]:
        return aiter(self._up)

    async def reply(self, message: bytes) -> None:
        await self._down.put(message)

    def close(self) -> None:
        self._up.close()
        self._down.close()
