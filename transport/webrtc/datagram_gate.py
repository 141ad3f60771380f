"""A gate for the datagrams of a WebRTC connection: charges each one before it leaves, holds or drops it without room.

Everything passes here: ICE checks and consent, the DTLS handshake, messages, acknowledgements, repeats of SCTP, and the
goodbye. A datagram that finds no room waits for a short time; then it is dropped, as a network would drop it, and the
protocol that sent it sends it again if it still needs it. The datagrams of a message wait until there is room for all
of them: the server does not wait long for the parts of a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sagelink.transport.webrtc.aiortc_internals import RECORDS
from sagelink.transport.wire_cost import Prepaid, WireCharger

_RETRY_S = 0.004
_MAX_WAIT_S = 0.8  # SCTP and DTLS send again after a second
_MAX_WAIT_STUN_S = 0.4  # ICE sends again after half a second
_MAX_WAITING = 256  # datagrams
_APPLICATION_DATA = 23


class DatagramGate:
    """The gate of one connection."""

    def __init__(self, charger: WireCharger) -> None:
        self._charger = charger
        # Until when, bits, the message to which it belongs, whether messages pay, send.
        self._waiting: deque[tuple[float, int, Prepaid | None, bool, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.dropped = 0

    def send(self, data: bytes, header_bytes: int, send: Callable[[], None]) -> None:
        """Calls `send` as soon as there is room for a datagram, or never. `header_bytes`: all headers below it."""
        kind = data[0] if data else 0
        wait_s = _MAX_WAIT_S if kind in RECORDS else _MAX_WAIT_STUN_S
        bits = 8 * (len(data) + header_bytes)
        of_messages = kind == _APPLICATION_DATA
        message = self._charger.newest if of_messages else None
        self._waiting.append((asyncio.get_running_loop().time() + wait_s, bits, message, of_messages, send))
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._pass()

    def close(self) -> None:
        """Drops what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()

    def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._waiting:
            until_s, bits, message, of_messages, send = self._waiting[0]
            room = self._charger.room_bits()
            whole = min(message.bits, self._charger.share_bits or 0) if message else 0
            if room is None or max(bits, whole) <= room:
                send()
                self._charger.left(bits, of_messages)
            elif now_s < until_s:
                break
            else:
                self.dropped += 1
            self._waiting.popleft()  # nothing above gives way to another task
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(_RETRY_S, self._pass) if self._waiting else None
