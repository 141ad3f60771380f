"""A gate for the datagrams of a WebRTC connection: charges each one before it leaves, holds or drops it without room.

Everything passes here: ICE checks and consent, the DTLS handshake, messages, acknowledgements, repeats of SCTP, and the
goodbye. A datagram that finds no room waits for a short time; then it is dropped, as a network would drop it, and the
protocol that sent it sends it again if it still needs it. The datagrams of a message wait until there is room for all
of them, because the server does not wait long for the parts of a message. What keeps the connection alive passes before
messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sagelink.transport.webrtc.aiortc_internals import RECORDS
from sagelink.transport.wire_cost import Prepaid, WireCharger

_RETRY_S = 0.004
_MAX_WAIT_S = 0.8  # SCTP and DTLS send again after a second
_MAX_WAIT_STUN_S = 0.4  # ICE sends again after half a second
_MAX_WAITING = 256  # datagrams
_APPLICATION_DATA = 23
_SHORT = 140  # bytes of a record; an acknowledgement or a heartbeat has fewer, a message more


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A datagram without room."""

    until_s: float
    bits: int
    of_messages: bool  # messages pay for it as far as they can
    message: Prepaid | None  # to which it belongs
    send: Callable[[], None]


class DatagramGate:
    """The gate of one connection."""

    def __init__(self, charger: WireCharger) -> None:
        self._charger = charger
        self._urgent: deque[_Waiting] = deque()  # of the connection
        self._messages: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.dropped = 0

    def send(self, data: bytes, header_bytes: int, send: Callable[[], None]) -> None:
        """Calls `send` as soon as there is room for a datagram, or never. `header_bytes`: all headers below it."""
        kind = data[0] if data else 0
        until_s = asyncio.get_running_loop().time() + (_MAX_WAIT_S if kind in RECORDS else _MAX_WAIT_STUN_S)
        of_messages = kind == _APPLICATION_DATA
        message = self._charger.newest if of_messages and len(data) > _SHORT else None
        queue = self._messages if message else self._urgent
        queue.append(_Waiting(until_s, 8 * (len(data) + header_bytes), of_messages, message, send))
        if len(queue) > _MAX_WAITING:
            queue.popleft()
            self.dropped += 1
        self._pass()

    def close(self) -> None:
        """Drops what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._urgent.clear()
        self._messages.clear()

    def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        self._pass_from(self._urgent, loop.time())
        self._pass_from(self._messages, loop.time())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(_RETRY_S, self._pass) if self._urgent or self._messages else None

    def _pass_from(self, queue: deque[_Waiting], now_s: float) -> None:
        while queue:
            first = queue[0]
            room = self._charger.room_bits()
            if room is None or self._needed_bits(first) <= room:
                first.send()
                self._charger.left(first.bits, first.of_messages)
            elif now_s < first.until_s:
                break
            else:
                self.dropped += 1
            queue.popleft()  # nothing above gives way to another task

    def _needed_bits(self, datagram: _Waiting) -> int:
        if datagram.message is None:
            return datagram.bits
        return max(datagram.bits, min(datagram.message.bits, self._charger.share_bits or 0))
