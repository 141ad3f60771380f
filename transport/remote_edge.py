"""The part of an EdgeLink that MQTT and WebRTC share: lifecycle, refusals, replies, and what messages cost."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Self

from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import background
from sagelink.transport.envelope import MAX_MESSAGE_BYTES
from sagelink.transport.head_messages import HeadPart
from sagelink.transport.head_sender import HeadOffers, HeadSender, NoHeads
from sagelink.transport.link import Undelivered
from sagelink.transport.reconnect import Reconnector
from sagelink.transport.wire_cost import Prepaid, WireCharger

PREPAID_S = 1.0  # by then a message and its acknowledgements have left
MAX_REPLIES = 64  # replies that may wait to be read; further ones replace the oldest


class RemoteEdgeLink(ABC):
    """Base of the edge links to another process.

    A subclass sets `_reconnector` and implements the abstract methods; it calls `_changed.set()` whenever `refusal`
    may have changed, and `_deliver` for each reply.
    """

    _reconnector: Reconnector

    def __init__(self, wire_ledger: WireLedger | None, must_connect: bool, heads: HeadOffers | None = None) -> None:
        """`wire_ledger`: see WireCharger. `must_connect`: entering the link fails unless the first attempt to
        connect succeeds. `heads`: of the cameras; None: they have the model's own classes."""
        self._must_connect = must_connect
        self._replies: Channel[tuple[str, bytes | Undelivered]] = Channel(
            "downlink", "drop_oldest", capacity=MAX_REPLIES
        )
        self._changed = asyncio.Event()
        self._charger = WireCharger(wire_ledger)
        self._heads = HeadSender(
            heads or NoHeads(), self._try_part, self._part_bits, self._pay_part, lambda: self._charger.limit_bits
        )
        self._entered = AsyncExitStack()

    @abstractmethod
    def wire_bits(self, camera: str, message_bytes: int) -> int:
        """See EdgeLink."""

    @abstractmethod
    def _is_connected(self) -> bool: ...

    @abstractmethod
    def _congestion(self) -> str | None:
        """The reason why the open connection takes no message now; None if it takes one."""

    @abstractmethod
    async def _transmit(self, camera: str, message: bytes, prepaid: Prepaid) -> None:
        """Hands a message to the open connection, and has its charge closed when it has left."""

    @abstractmethod
    def _part_bits(self, message_bytes: int) -> int:
        """Uplink bits of a part of a head."""

    @abstractmethod
    async def _transmit_part(self, part: HeadPart) -> None:
        """Hands a part of a head to the open connection."""

    @abstractmethod
    async def _announce(self) -> None:
        """Announces the cameras with their heads again, over the open connection."""

    async def __aenter__(self) -> Self:
        """Raises SagelinkError if the link must connect and the first attempt fails."""
        async with AsyncExitStack() as stack:
            stack.callback(self._close)
            await stack.enter_async_context(background(self._reconnector.run()))
            await stack.enter_async_context(background(self._heads.run()))
            await stack.enter_async_context(background(self._announce_changes()))
            if self._must_connect and (trouble := await self._reconnector.first_attempt()) is not None:
                raise SagelinkError(f"the server cannot be reached: {trouble}")
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._replies.close()
        await self._entered.aclose()

    def _close(self) -> None:
        self._replies.close()
        self._changed.set()

    def refusal(self) -> str | None:
        if self._replies.closed:
            return "the link is closed"
        if not self._is_connected():
            return self._reconnector.trouble or "not connected"
        return self._congestion()

    def head_refusal(self, fingerprint: bytes) -> str | None:
        return self._heads.refusal(fingerprint)

    def _pay_part(self, bits: int) -> bool:
        """Charges a part of a head that is about to be sent; False while it cannot be."""
        return self._is_connected() and self._try_prepay("", bits)

    async def _try_part(self, part: HeadPart) -> bool:
        if not self._is_connected() or self._replies.closed:
            return False
        await self._transmit_part(part)
        return True

    async def _announce_changes(self) -> None:
        """Announces each change of a camera's head."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()

        def note() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(changed.set)

        self._heads.offers.listen(note)
        while True:
            await changed.wait()
            changed.clear()
            if self._is_connected():
                await self._announce()

    async def ready(self) -> None:
        while self.refusal() is not None and not self._replies.closed:
            self._changed.clear()
            await self._changed.wait()

    async def send(self, camera: str, message: bytes) -> str | None:
        refusal = self.refusal() or self._size_refusal(camera, len(message))
        if refusal is not None:
            return refusal
        prepaid = self._charger.prepay(camera, self.wire_bits(camera, len(message)))
        await self._transmit(camera, message, prepaid)
        return None

    def _try_prepay(self, camera: str, bits: int) -> bool:
        """Charges a message that is sent again; False if the budget has no room for it now."""
        if (prepaid := self._charger.try_prepay(camera, bits)) is None:
            return False
        self._close_later(prepaid, PREPAID_S)
        return True

    def _close_later(self, prepaid: Prepaid, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._charger.close, prepaid)

    def max_message_bytes(self, camera: str) -> int:
        return MAX_MESSAGE_BYTES

    def _size_refusal(self, camera: str, message_bytes: int) -> str | None:
        if message_bytes <= (limit := self.max_message_bytes(camera)):
            return None
        return f"{message_bytes} bytes; accepted: up to {MAX_MESSAGE_BYTES}, and by this connection up to {limit}"

    def replies(self) -> AsyncIterator[tuple[str, bytes | Undelivered]]:
        return aiter(self._replies)

    def _deliver(self, camera: str, reply: bytes | Undelivered) -> None:
        with contextlib.suppress(ChannelClosed):
            self._replies.put_now((camera, reply))
