"""A gate for the datagrams of a WebRTC connection: charges each one before it leaves, holds or drops it without room.

Everything passes here: ICE checks and consent, the DTLS handshake, messages, acknowledgements, repeats of SCTP, and the
goodbye. A datagram that finds no room waits for a short time; then it is dropped, as a network would drop it, and the
protocol that sent it sends it again if it still needs it. The datagrams of a message wait until there is room for all
of them: the server does not wait long for the parts of a message. Where windows are small, messages leave one after the
other at the rate of the budget.
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
# ICE ends a connection after 30 s in which no consent check passed (RFC 7675): a full window must let one pass.
_CONSENT_S, _CONSENT_BITS = 10.0, 8 * 130
_CHECK_S = 0.5
_CONSENT = 0x00, 0x01  # first bytes of STUN requests and of answers


class DatagramGate:
    """The gate of one connection."""

    def __init__(self, charger: WireCharger, spreads: Callable[[], bool] = lambda: False) -> None:
        """`spreads`: messages leave one after the other at the rate of the budget, so that an acknowledgement of one
        travels with the next."""
        self._charger = charger
        self._spreads = spreads
        self._kept_bits = 0  # that are reserved all the time
        self._passed_s: dict[int, float] = {}  # when a consent check or the answer to one has left, by its kind
        self._last: Prepaid | None = None  # the message that left last
        self._next_message_s = 0.0
        self._check_timer: asyncio.TimerHandle | None = None
        # Until when, bits, the message to which it belongs, its first byte, send.
        self._waiting: deque[tuple[float, int, Prepaid | None, int, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.dropped = 0

    def send(self, data: bytes, header_bytes: int, send: Callable[[], None]) -> None:
        """Calls `send` as soon as there is room for a datagram, or never. `header_bytes`: all headers below it."""
        kind = data[0] if data else 0
        wait_s = _MAX_WAIT_S if kind in RECORDS else _MAX_WAIT_STUN_S
        bits = 8 * (len(data) + header_bytes)
        message = self._charger.newest if kind == _APPLICATION_DATA else None
        self._waiting.append((asyncio.get_running_loop().time() + wait_s, bits, message, kind, send))
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._pass()

    def reserve(self, bits: int) -> None:
        """Keeps these bits from messages from now on, and those of a consent check when none has passed for long."""
        now_s = asyncio.get_running_loop().time()
        self._kept_bits, self._passed_s = bits, dict.fromkeys(_CONSENT, now_s)
        self._check()

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        is_due = loop.time() - min(self._passed_s.values()) > _CONSENT_S
        self._charger.reserve(max(self._kept_bits, _CONSENT_BITS if is_due else 0))
        self._check_timer = loop.call_later(_CHECK_S, self._check)

    def close(self) -> None:
        """Drops what waits."""
        if self._check_timer is not None:
            self._check_timer.cancel()
        self._charger.reserve(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()

    def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._waiting:
            until_s, bits, message, kind, send = self._waiting[0]
            of_messages = kind == _APPLICATION_DATA
            room = self._charger.room_bits()
            whole = min(message.bits, self._charger.share_bits or 0) if message else 0
            early = message is not None and message is not self._last and now_s < self._next_message_s
            if room is None or (max(bits, whole) <= room and not early):
                send()
                self._note(now_s, bits, message, kind)
                self._charger.left(bits, of_messages)
            elif now_s < until_s:
                break
            else:
                self.dropped += 1
            self._waiting.popleft()  # nothing above gives way to another task
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(_RETRY_S, self._pass) if self._waiting else None

    def _note(self, now_s: float, bits: int, message: Prepaid | None, kind: int) -> None:
        """A datagram leaves."""
        if kind in _CONSENT:
            self._passed_s[kind] = now_s
        if message is None or not self._spreads():
            return
        begins = now_s if message is not self._last else self._next_message_s
        self._last, self._next_message_s = message, begins + bits / (self._charger.rate_bps or float("inf"))
